//! Starting: what must be right before anything is served.

use std::fs;

use crate::harness::*;

#[test]
fn a_server_without_one_of_its_keys_refuses_to_start_and_names_it() {
    scenario(async |d| {
        let keys =
            ["entry-signer", "checkpoint-signer", "pepper", "row-mac", "wrapping", "blind-index"];
        for name in keys {
            let file = d.key_dir().join(format!("{name}.1"));
            let kept = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            let why = d.try_replica(d.databases(), &d.key_dir()).await.err().expect("it refuses");
            assert!(why.contains(&format!("lacks {name}.1")), "{why}");
            assert!(!file.exists(), "a missing key is never made anew");
            fs::write(&file, kept).unwrap();
        }
        d.replica().await;
    });
}

#[test]
fn a_server_with_the_keys_of_another_deployment_refuses_to_start() {
    scenario(async |d| {
        let theirs = d.key_dir().with_file_name("others");
        keyledger_server::keydir::KeyDirectory::create(&theirs).unwrap();
        d.secrets.key_directory(&theirs);
        let why = d.try_replica(d.databases(), &theirs).await.err().expect("it refuses");
        assert!(why.contains("signers are not those of this ledger"), "{why}");
    });
}

#[test]
fn init_refuses_to_run_twice() {
    scenario(async |d| {
        let init = |key_dir: &str, token_dir: &str| {
            let at = |folder: &str| d.key_dir().with_file_name(folder).display().to_string();
            let words = ["init", "--host", "keys.example.test", "--key-dir"].map(String::from);
            let folders = [at(key_dir), "--token-dir".into(), at(token_dir)];
            words.into_iter().chain(folders).collect::<Vec<_>>()
        };
        let mark = d.mark().await;
        for (key_dir, token_dir) in
            [("keys", "tokens"), ("keys", "new-tokens"), ("new-keys", "new-tokens")]
        {
            let again = d.run(init(key_dir, token_dir)).await;
            assert!(!again.status.success());
            assert!(again.text.contains("refuses to run twice"), "{}", again.text);
        }
        assert!(d.since(&mark).await.is_empty());
        d.replica().await;
    });
}
