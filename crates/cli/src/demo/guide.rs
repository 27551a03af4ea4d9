//! What to try with the demonstration: commands that work as they are printed.

use super::agency::SPRAYER;
use super::keys::Keys;
use std::path::Path;

/// What the commands need to know.
pub struct Guide<'a> {
    /// The data folder.
    pub data: &'a Path,
    /// Where the server is.
    pub url: &'a str,
    /// The verifier key.
    pub key: &'a str,
    /// Keys to show to the server; `None` if it asks for none.
    pub keys: Option<&'a Keys>,
    /// A payment that was tampered with, if there is one.
    pub tampered: Option<&'a str>,
}

impl Guide<'_> {
    /// The text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Some(Keys { administrator, auditor, ingest }) = self.keys {
            text += &format!(
                "\nKeys for the server, shown only now and valid for 30 days:\n  administrator  {administrator}\n  auditor        {auditor}\n  ingest         {ingest}\n"
            );
        }
        text += "\nThings to try, in another terminal:\n";
        for (what, how) in self.questions().into_iter().chain(self.access()).chain(self.evidence()) {
            text += &format!("\n# {what}\n{how}\n");
        }
        text
    }

    /// A command on this data folder.
    fn command(&self, rest: &str) -> String {
        format!("{} --data {} {rest}", program(), self.folder())
    }

    fn folder(&self) -> String {
        quoted(&self.data.display().to_string())
    }

    fn questions(&self) -> Vec<(&'static str, String)> {
        let url = self.url;
        let shown = |key: Option<&String>| key.map(|key| format!(" -H 'Authorization: Bearer {key}'")).unwrap_or_default();
        let (sends, reads) = (shown(self.keys.map(|keys| &keys.ingest)), shown(self.keys.map(|keys| &keys.auditor)));
        let sql = |query: &str| self.command(&format!("sql \"{query}\""));
        vec![
            (
                "Post an event, and find it at once",
                format!(
                    "curl -s {url}/api/v1/logs/auth_audit_log{sends} -H 'Content-Type: application/json' \\\n     -d '{{\"user_id\": 7, \"event_type\": \"LOGIN\", \"ip_address\": \"192.0.2.9\"}}'\n\
                 curl -s -G {url}/api/v1/sql{reads} -H 'Accept: text/csv' \\\n     --data-urlencode \"q=SELECT id, event_type, created_at, blockchain_hash FROM auth_audit_log WHERE ip_address = '192.0.2.9'\""
                ),
            ),
            (
                "Who changed most this week",
                sql("SELECT u.display_name, count(*) AS changes FROM sys_audit_log l JOIN users u ON u.id = l.changed_by \
                 WHERE l.changed_at > now() - INTERVAL '7 days' GROUP BY 1 ORDER BY 2 DESC LIMIT 5"),
            ),
            (
                "Password spraying: one address, many accounts",
                sql(
                    "SELECT ip_address, count(*) AS failures, count(DISTINCT user_id) AS accounts, min(created_at) AS since FROM auth_audit_log \
                 WHERE event_status = 'FAILURE' GROUP BY 1 HAVING count(DISTINCT user_id) > 10",
                ),
            ),
            (
                "… and the account whose password fitted",
                sql(&format!(
                    "SELECT u.username, l.created_at, l.risk_score FROM auth_audit_log l JOIN users u ON u.id = l.user_id \
                 WHERE l.ip_address = '{SPRAYER}' AND l.event_status = 'SUCCESS'"
                )),
            ),
            (
                "Impossible travel: two places within an hour",
                sql("SELECT user_id, before AS place, at_before AS time, location AS next_place, created_at AS next_time FROM \
                 (SELECT user_id, location, created_at, lag(location) OVER w AS before, lag(created_at) OVER w AS at_before FROM auth_audit_log \
                 WHERE event_type = 'LOGIN' AND event_status = 'SUCCESS' WINDOW w AS (PARTITION BY user_id ORDER BY created_at)) \
                 WHERE location <> before AND created_at < at_before + INTERVAL '1 hour'"),
            ),
            (
                "Mass reading: more cases in an hour than anybody works on",
                sql(
                    "SELECT u.username, date_trunc('hour', l.created_at) AS hour, count(*) AS reads FROM api_access_log l JOIN users u ON u.id = l.user_id \
                 WHERE l.method = 'GET' GROUP BY 1, 2 HAVING count(*) > 100 ORDER BY reads DESC",
                ),
            ),
            (
                "Changes past the application: nobody's name on them",
                sql(
                    "SELECT changed_at, table_name, operation, primary_key, user_agent FROM sys_audit_log WHERE changed_by IS NULL AND table_name NOT LIKE 'muniment.%'",
                ),
            ),
        ]
    }

    fn access(&self) -> Vec<(&'static str, String)> {
        let Some(keys) = self.keys else { return Vec::new() };
        let (url, program) = (self.url, program());
        vec![
            (
                "Reading takes another key than sending: this one is refused",
                format!("curl -s -G {url}/api/v1/sql -H 'Authorization: Bearer {}' --data-urlencode 'q=SELECT 1'", keys.ingest),
            ),
            (
                "Give somebody a key of their own, and see who has one",
                format!(
                    "export MUNIMENT_KEY={}\n{program} access keys create 'my own' --role viewer --expires 7d --server {url}\n\
                     {program} access keys list --server {url}",
                    keys.administrator
                ),
            ),
            (
                "Who read more cases in an hour than a limit allows, and what an application is told that asks",
                format!(
                    "MUNIMENT_KEY={} {program} limits violations --server {url}\n\
                     for n in 1 2 3 4 5 6; do MUNIMENT_KEY={} {program} limits check /login --address 192.0.2.9 --server {url}; done",
                    keys.auditor, keys.ingest
                ),
            ),
            (
                "How the service is doing, and how the agency was in the last days",
                format!(
                    "export MUNIMENT_KEY={}\n{program} monitoring --server {url}\n\
                     {program} metrics show response_time --bucket 1d --from $(date -u -d '-7 days' +%F) --server {url}",
                    keys.auditor
                ),
            ),
        ]
    }

    fn evidence(&self) -> Vec<(&'static str, String)> {
        let (program, key) = (program(), quoted(self.key));
        let (proof, bundle) = (format!("{}-proof.json", self.folder()), format!("{}-bundle", self.folder()));
        let (table, row) = self.tampered.map_or(("case.hoso", "HS-000001"), |payment| ("case.payment", payment));
        let command = |rest: &str| self.command(rest);
        vec![
            (
                "All that happened to one row, and what it was like a day ago",
                format!(
                    "{}\n{}",
                    command(&format!("history {table} {row}")),
                    command("at case.hoso --time $(date -u -d yesterday +%FT%TZ) | head -5")
                ),
            ),
            ("Verify everything", command("verify")),
            (
                "Hand somebody a proof of one record, which they check with nothing but the verifier key",
                format!("{}\n{program} check {proof} --key {key}", command(&format!("prove sys_audit_log 1 --out {proof}"))),
            ),
            (
                "Hand somebody the whole log",
                format!("{}\n{program} verify {bundle} --key {key}", command(&format!("export --out {bundle}"))),
            ),
        ]
    }
}

/// This program's name as it was typed.
fn program() -> String {
    quoted(&std::env::args().next().unwrap_or_else(|| "muniment".to_owned()))
}

/// As a word of a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell() {
        assert_eq!(quoted("./muniment-demo"), "./muniment-demo");
        assert_eq!(quoted("my data"), "'my data'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
