//! A road to a server, at an address of its own that stays: it may be cut, and lead to another server later.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Road {
    pub(crate) endpoint: String,
    leads_to: watch::Sender<Option<String>>,
}

impl Road {
    /// Leads to an address such as `127.0.0.1:7420`.
    pub(crate) async fn to(address: &str) -> Road {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let leads_to = watch::Sender::new(Some(address.to_string()));
        let watched = leads_to.clone();
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(carry(from, watched.subscribe()));
            }
        });
        Road { endpoint, leads_to }
    }

    /// Ends all connections, and every new one.
    pub(crate) fn cut(&self) {
        self.leads_to.send_replace(None);
    }

    /// From now on it leads here; connections to elsewhere end.
    pub(crate) fn lead_to(&self, address: &str) {
        self.leads_to.send_replace(Some(address.to_string()));
    }
}

/// Until an end closes it, or the road leads elsewhere.
async fn carry(mut from: TcpStream, mut leads_to: watch::Receiver<Option<String>>) {
    let Some(address) = leads_to.borrow_and_update().clone() else { return };
    let Ok(mut to) = TcpStream::connect(address).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut from, &mut to) => {}
        _ = leads_to.changed() => {}
    }
}
