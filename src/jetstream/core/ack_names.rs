//! The subjects that deliveries of a stream's consumers are acknowledged to, and that flow control is answered to.
//!
//! There are two forms. The short one begins with the stream; the long one puts the server's domain and the account before it, so that subjects
//! of different domains and accounts can be told apart. Both are heard always; which one is written is the operator's choice.

use bytes::Bytes;

use crate::jetstream::types::name_hash;

/// Which form of these subjects is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AckForm {
    /// `$JS.ACK.<stream>.<consumer>…`
    #[default]
    Short,
    /// `$JS.ACK.<domain>.<account>.<stream>.<consumer>…`
    Long,
}

/// These subjects of one stream.
#[derive(Debug, Clone)]
pub struct AckNames {
    /// The tokens up to the stream's name, in the short form and the long one.
    short: String,
    long: String,
    form: AckForm,
}

impl AckNames {
    /// Of a stream on a server of that domain, which may be empty, in an account.
    pub fn new(domain: &str, account: &str, stream: &str, form: AckForm) -> Self {
        let domain = if domain.is_empty() { "_" } else { domain };
        let account = name_hash(account);
        let account = String::from_utf8_lossy(&account);
        Self {
            short: stream.to_owned(),
            long: format!("{domain}.{account}.{stream}"),
            form,
        }
    }

    fn written(&self) -> &str {
        match self.form {
            AckForm::Short => &self.short,
            AckForm::Long => &self.long,
        }
    }

    /// What the reply subjects of a consumer's deliveries begin with.
    pub(super) fn ack_prefix(&self, consumer: &str) -> Bytes {
        Bytes::from(format!("$JS.ACK.{}.{consumer}.", self.written()))
    }

    /// What the subjects for its flow control begin with.
    pub(super) fn flow_prefix(&self, consumer: &str) -> String {
        format!("$JS.FC.{}.{consumer}.", self.written())
    }

    /// Where acks are heard. No subject fits both patterns, whatever streams and domains are called: the second takes only longer ones.
    pub fn ack_patterns(&self) -> [String; 2] {
        [
            format!("$JS.ACK.{}.*.*.*.*.*.*", self.short),
            format!("$JS.ACK.{}.*.*.*.*.*.>", self.long),
        ]
    }

    /// Where answers to flow control are heard.
    pub fn flow_patterns(&self) -> [String; 2] {
        [&self.short, &self.long].map(|stream| format!("$JS.FC.{stream}.*.*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_heard_and_one_is_written() {
        // The hash of `$G`, as the reference writes it.
        let short = AckNames::new("", "$G", "S", AckForm::Short);
        assert_eq!(short.ack_prefix("C"), "$JS.ACK.S.C.");
        assert_eq!(short.flow_prefix("C"), "$JS.FC.S.C.");
        let long = AckNames::new("", "$G", "S", AckForm::Long);
        assert_eq!(long.ack_prefix("C"), "$JS.ACK._.szMpdrwD.S.C.");
        let named = AckNames::new("hub", "$G", "S", AckForm::Long);
        assert_eq!(named.flow_prefix("C"), "$JS.FC.hub.szMpdrwD.S.C.");
        for names in [short, long] {
            assert_eq!(
                names.ack_patterns(),
                ["$JS.ACK.S.*.*.*.*.*.*", "$JS.ACK._.szMpdrwD.S.*.*.*.*.*.>"]
            );
            assert_eq!(
                names.flow_patterns(),
                ["$JS.FC.S.*.*", "$JS.FC._.szMpdrwD.S.*.*"]
            );
        }
    }
}
