//! What three real records of each format must become, as read in the originals: who (for whom), what, on what, outcome, when,
//! from which address. The records themselves lie in the folder of samples.

use keyledger_proto::entry::Outcome::{self, *};

use super::Format::{self, *};

pub(super) struct Expected {
    pub format: Format,
    pub file: &'static str,
    /// Where the record stands in its file.
    pub place: &'static str,
    /// `user:` or `service:` and the name, then those for whom, nearest first.
    pub who: &'static str,
    pub action: &'static str,
    pub resource: &'static str,
    pub outcome: Outcome,
    /// Empty where the record doesn't say it.
    pub time: &'static str,
    pub address: &'static str,
}

type Row =
    (&'static str, &'static str, &'static str, &'static str, Outcome, &'static str, &'static str);

pub(super) fn all() -> impl Iterator<Item = Expected> {
    let files = TABLE.into_iter();
    files
        .flat_map(|(format, file, rows)| rows.iter().map(move |row| to_expected(format, file, row)))
}

fn to_expected(format: Format, file: &'static str, row: &Row) -> Expected {
    let &(place, who, action, resource, outcome, time, address) = row;
    Expected { format, file, place, who, action, resource, outcome, time, address }
}

#[rustfmt::skip]
const TABLE: [(Format, &str, &[Row]); 12] = [
    (Auditd, "auditd.log", &[
        ("line 2", "user:uid 700", "auditd.user_cmd", "/usr/lib64/nagios/plugins/check_asterisk_sip_peers", Success, "2017-03-07T04:59:29.03Z", ""),
        ("line 39", "user:uid 1000", "auditd.user_login", "/usr/sbin/sshd", Success, "2016-12-07T02:17:23.193Z", "96.241.146.97"),
        ("line 56", "service:metricbeat", "auditd.avc", "metricbeat", Denied, "2018-04-25T13:28:53.08Z", ""),
    ]),
    (Journald, "journald.jsonl", &[
        ("line 1", "service:systemd-journal", "systemd-journal.message", "systemd-journald.service", Unspecified, "2013-03-29T01:07:20.181716Z", ""),
        ("line 425", "service:systemd", "systemd.message", "systemd-user-sessions.service", Success, "2013-03-29T01:07:20.723452Z", ""),
        ("line 461", "user:uid 0", "login.message", "login", Unspecified, "2013-03-29T01:07:23.563178Z", ""),
    ]),
    (Kubernetes, "k8s-audit.jsonl", &[
        ("line 1", "service:system:serviceaccount:kube-system:resourcequota-controller", "kubernetes.get", "/apis/metrics.k8s.io/v1beta1", Success, "2020-05-05T16:16:37.655912Z", "172.31.16.64"),
        ("line 3", "user:aksService", "kubernetes.create", "namespaces/kube-system/configmaps/coredns-custom", Failure, "2020-05-05T16:16:37.699072Z", "172.31.9.219"),
        ("line 4", "user:aksService", "kubernetes.get", "nodes/aks-agentpool-35488936-vmss000002", Success, "2020-05-05T16:16:37.742806Z", "127.0.0.1"),
    ]),
    (Cloudtrail, "cloudtrail.json", &[
        ("record 1", "service:secretsmanager.amazonaws.com user:bert-jan", "kms:GenerateDataKey", "arn:aws:kms:us-east-1:123837392027:key/dad21b23-9915-42bd-981b-2a9f3c8f20c8", Success, "2023-07-10T11:57:50Z", ""),
        ("record 159", "user:bert-jan", "s3:GetBucketTagging", "arn:aws:s3:::stratus-red-team-ctes-bucket-qyxyekjbtk", Failure, "2023-07-10T11:59:57Z", "192.168.10.20"),
        ("record 185", "user:stratus-red-team-leave-org-role/aws-go-sdk-1688990515440126480", "organizations:LeaveOrganization", "organizations", Denied, "2023-07-10T12:02:05Z", "192.168.10.20"),
    ]),
    (Gcp, "gcp-logging.jsonl", &[
        ("line 1", "user:fakeemailxyz@gmail.com", "beta.compute.networks.insert", "projects/fake-project/global/networks/test", Success, "2021-10-19T02:57:47.339377Z", "1.1.1.1"),
        ("line 10", "user:fake-account@fake-project.com user:service-account-two@fake-project.com user:service-account-one@fake-project.com", "beta.compute.instances.insert", "projects/1234567890/zones/us-central1-b/instances/fake-compute-instance", Success, "2024-04-26T20:10:10.024055Z", "1.1.1.1"),
        ("line 11", "service:dvwa-service-account@ketchup.iam.gserviceaccount.com service:service-1234567890@compute-system.iam.gserviceaccount.com", "google.iam.admin.v1.CreateServiceAccount", "projects/ketchup", Denied, "2024-12-03T17:58:44.882119699Z", "34.72.217.225"),
    ]),
    (Azuread, "azuread-audit.jsonl", &[
        ("line 1", "user:pgustavo@simulandlabs.com", "Update application – Certificates and secrets management", "Application/11b49e19-2326-4be6-93cb-7f37439bbd81", Success, "2021-08-02T13:29:25.983Z", ""),
        ("line 3", "user:pgustavo@simulandlabs.com", "Update application", "Application/11b49e19-2326-4be6-93cb-7f37439bbd81", Success, "2021-08-02T13:25:12.246Z", ""),
        ("line 4", "user:pgustavo@simulandlabs.com", "Add delegated permission grant", "ServicePrincipal/401dd906-ea4f-4d41-b762-7e936d222368", Success, "2021-08-02T13:27:20.017Z", ""),
    ]),
    (Github, "github-audit.jsonl", &[
        ("line 2", "user:github_handle", "workflows.completed_workflow_run", "repos", Failure, "2023-01-31T18:58:27.638Z", ""),
        ("line 11", "user:bobert", "business_advanced_security.enabled", "orgs/example-enterprise", Success, "2022-12-15T13:31:51.111Z", "12.12.12.12"),
        ("line 27", "user:sarah78", "organization_moderators.add_user", "orgs/example-io", Success, "2022-12-11T05:17:28.078Z", ""),
    ]),
    (Okta, "okta.jsonl", &[
        ("line 1", "user:homer@springfield.gov", "user.session.impersonation.grant", "", Unspecified, "2022-03-22T14:21:53.225Z", "1.1.1.1"),
        ("line 27", "user:homer.simpson@duff.com", "app.generic.unauth_app_access_attempt", "AppInstance/12345", Failure, "2022-12-13T00:58:19.811Z", "1.2.3.4"),
        ("line 35", "user:casey.hill@hey.com", "user.session.start", "AuthenticatorEnrollment/lae1at5k3ir9bV1gr697", Success, "2024-04-02T19:17:37.621Z", "99.108.5.25"),
    ]),
    (Vault, "vault-audit.jsonl", &[
        ("line 1", "user:root", "vault.create.request", "kv/data/hello", Unspecified, "2020-04-23T14:05:59.8408876Z", "172.30.0.1"),
        ("line 4", "user:root", "vault.read.response", "kv/data/hello", Success, "2020-04-23T14:06:11.2346364Z", "172.30.0.1"),
        ("line 34", "user:token", "vault.read.response", "kv/data/hello", Denied, "2020-04-23T14:19:04.6830089Z", "172.30.0.1"),
    ]),
    (Teleport, "teleport.jsonl", &[
        ("line 1", "user:alice@example.com", "db.session.dynamodb.request", "databases/ddb1", Success, "2022-12-23T19:14:07.763Z", ""),
        ("line 4", "user:benarent", "user.delete", "users", Success, "2020-06-05T16:24:05Z", ""),
        ("line 110", "user:joe", "windows.desktop.session.start", "desktops/100.104.52.89:3389", Failure, "2021-10-18T23:39:13.105Z", ""),
    ]),
    (Ocsf, "ocsf.jsonl", &[
        ("line 4", "service:cloudformation.amazonaws.com user:AROAIOJRFK4IOK6BW5ISY:Admin-user", "CreateRole", "users", Success, "2023-02-03T00:28:34Z", ""),
        ("line 14", "user:Alice", "UpdateTrail", "cloudtrail.amazonaws.com", Failure, "2016-07-14T19:15:45Z", "205.251.233.182"),
        ("line 30", "service:Amazon VPC", "Network Activity: Refuse", "172.31.2.52", Denied, "2022-04-12T00:02:12Z", "1.2.3.4"),
    ]),
    (Cloudevents, "cloudevents.jsonl", &[
        ("line 1", "service:http://localhost/source", "mock.test", "sub", Unspecified, "2018-04-26T12:48:09Z", ""),
        ("line 8", "service:http://localhost/source", "mock.test", "http://localhost/source", Unspecified, "", ""),
        ("line 20", "service:http://localhost/source", "mock.test", "sub", Unspecified, "2018-04-26T14:48:09.1234Z", ""),
    ]),
];
