//! PLAIN (RFC 4616): name and password in one message, as they are.

use zeroize::Zeroizing;

use super::mechanism::{Mechanism, Step};
use super::secret::Secret;
use crate::error::Result;

pub(crate) const NAME: &str = "PLAIN";

/// One login.
pub(crate) struct Plain {
    user: String,
    password: Secret,
    sent: bool,
}

impl Plain {
    pub(crate) fn new(user: String, password: Secret) -> Self {
        Self { user, password, sent: false }
    }
}

impl Mechanism for Plain {
    fn name(&self) -> &'static str {
        NAME
    }

    /// What a broker that has accepted says besides is passed over, as by Java's clients: PLAIN has nothing to say.
    fn step(&mut self, _: &[u8]) -> Result<Step> {
        if std::mem::replace(&mut self.sent, true) {
            return Ok(Step::Done);
        }
        // No authorization id: Kafka takes none but the name itself.
        let size = self.user.len() + self.password.expose().len() + 2;
        // In one piece: a vector that grows leaves copies behind.
        let mut message = Zeroizing::new(Vec::with_capacity(size));
        message.push(0);
        message.extend_from_slice(self.user.as_bytes());
        message.push(0);
        message.extend_from_slice(self.password.expose());
        Ok(Step::Send(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_and_an_empty_answer() {
        let mut login = Plain::new("alice".into(), Secret::from("pässword"));
        let Ok(Step::Send(message)) = login.step(b"") else { panic!("nothing is sent") };
        assert_eq!(message[..], *"\0alice\0pässword".as_bytes());
        assert!(matches!(login.step(b""), Ok(Step::Done)));
    }

    #[test]
    fn what_a_broker_says_besides_is_passed_over() {
        let mut login = Plain::new("alice".into(), Secret::from("p"));
        login.step(b"").unwrap();
        assert!(matches!(login.step(b"welcome"), Ok(Step::Done)));
    }
}
