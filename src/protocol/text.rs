//! A reply that is one long text, written in parts.
//!
//! So it needs no more memory than a part, and others have their turns between two parts.

use super::frame::Terminator;

/// Such a reply, as far as it is written.
#[derive(Debug, Default)]
pub struct TextReply {
    begun: bool,
}

impl TextReply {
    /// Appends a part of the text.
    pub fn part(&mut self, text: &str, out: &mut Vec<u8>) {
        if !self.begun {
            out.extend_from_slice(b"{\"parameters\":{\"text\":\"");
            self.begun = true;
        }
        let quoted = serde_json::to_string(text).expect("JSON has every text");
        out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
    }

    /// Appends the end.
    pub fn end(self, out: &mut Vec<u8>, end: Terminator) {
        debug_assert!(self.begun);
        out.extend_from_slice(b"\"}}");
        out.push(end.byte());
    }

    /// Appends all of it at once.
    pub fn whole(mut self, text: &str, out: &mut Vec<u8>, end: Terminator) {
        self.part(text, out);
        self.end(out, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_one_text() {
        let mut out = Vec::new();
        let mut reply = TextReply::default();
        let parts = ["# \"a\"\n", "", "\\ \u{1f600}\t"];
        parts.iter().for_each(|part| reply.part(part, &mut out));
        reply.end(&mut out, Terminator::Nul);
        assert_eq!(out.pop(), Some(0));
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(read, serde_json::json!({ "parameters": { "text": parts.concat() } }));
    }
}
