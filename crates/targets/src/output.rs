//! The end of what an agent or a mechanism said, in bounded memory and without secrets.

use loom_process::secrets::Secrets;
use loom_process::tail::Tail;
use loom_protocol::target::BirthTicket;

/// How much of it is kept, in bytes.
pub const KEPT: usize = 4 * 1024;

/// The end of an output as it may be told: at most [`KEPT`] bytes, without these secrets, and without tickets, which
/// are known by how they are written where nobody has them any more.
pub fn told(bytes: &[u8], secrets: &Secrets) -> String {
    let text = secrets.hide(&String::from_utf8_lossy(bytes));
    let text = BirthTicket::hide_all(&text);
    let mut tail = Tail::default();
    tail.push(text.as_bytes());
    tail.text(KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_tickets_are_not() {
        let (ticket, other) = (BirthTicket::generate(), BirthTicket::generate());
        let secrets = Secrets::new([ticket.expose().to_owned(), "hunter2hunter2".into()]);
        let said = format!(
            "{}\nA={} B={} C=hunter2hunter2 end",
            "x".repeat(9000),
            ticket.expose(),
            other.expose()
        );
        let told = told(said.as_bytes(), &secrets);
        assert!(told.ends_with("A=*** B=*** C=*** end"), "{told}");
        assert!(told.len() <= KEPT && told.contains("bytes left out"));
    }
}
