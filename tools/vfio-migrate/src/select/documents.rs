// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Takes a stream of documents apart: JSON lines, or documents of several lines one after the other.
//!
//! The first document decides. If its first line is not a whole one, but the brackets that are open at its end are closed on
//! later lines, then it goes on until there, and so do the others. If they never are, the first line is a damaged document, and
//! each further line is a document of its own.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use crate::json::MAX_DOCUMENT;

/// A document as it stands in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document {
    /// The line it begins in, counted from 0.
    pub line: usize,
    /// Its text, without the last newline. One that is too long is cut after the first byte that is too much.
    pub text: Vec<u8>,
}

/// How documents are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The first one has not come.
    Unknown,
    /// Each is one line.
    Lines,
    /// Each ends where its brackets are closed.
    Brackets,
}

/// Takes a stream apart.
pub(super) struct Documents<R> {
    input: R,
    /// Lines that have been read already.
    ahead: VecDeque<Vec<u8>>,
    /// The line that comes next.
    line: usize,
    form: Form,
}

impl<R: BufRead> Documents<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            ahead: VecDeque::new(),
            line: 0,
            form: Form::Unknown,
        }
    }

    /// The next document.
    pub(super) fn next(&mut self) -> io::Result<Option<Document>> {
        loop {
            let line = self.line;
            let Some(text) = self.next_line()? else {
                return Ok(None);
            };
            if text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if self.form == Form::Lines {
                return Ok(Some(Document { line, text }));
            }
            let mut brackets = Brackets::default();
            brackets.scan(&text);
            if !brackets.go_on() {
                if self.form == Form::Unknown {
                    self.form = Form::Lines;
                }
                return Ok(Some(Document { line, text }));
            }
            return self.rest(Document { line, text }, brackets).map(Some);
        }
    }

    /// A document that goes on after its first line.
    fn rest(&mut self, first: Document, mut brackets: Brackets) -> io::Result<Document> {
        let line = first.line;
        let mut text = first.text.clone();
        let mut taken = VecDeque::new();
        while text.len() <= MAX_DOCUMENT {
            let Some(next) = self.next_line()? else { break };
            text.push(b'\n');
            text.extend_from_slice(&next);
            brackets.scan(&next);
            taken.push_back(next);
            if !brackets.go_on() {
                break;
            }
        }
        let is_closed = brackets.is_closed() && text.len() <= MAX_DOCUMENT;
        if self.form == Form::Unknown && !is_closed {
            self.form = Form::Lines;
            self.line -= taken.len();
            taken.append(&mut self.ahead);
            self.ahead = taken;
            return Ok(first);
        }
        self.form = Form::Brackets;
        Ok(Document { line, text })
    }

    /// The next line without its newline. Of one that is too long, the rest is read past.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = match self.ahead.pop_front() {
            Some(line) => line,
            None => {
                let mut line = Vec::new();
                // One more than is read shows that there is more.
                let mut bounded = (&mut self.input).take(MAX_DOCUMENT as u64 + 1);
                if bounded.read_until(b'\n', &mut line)? == 0 {
                    return Ok(None);
                }
                if line.last() == Some(&b'\n') {
                    line.pop();
                } else if line.len() > MAX_DOCUMENT {
                    self.input.skip_until(b'\n')?;
                }
                line
            }
        };
        self.line += 1;
        Ok(Some(line))
    }
}

/// Follows the brackets of a document, without a look at what is between them.
#[derive(Default)]
struct Brackets {
    depth: usize,
    in_text: bool,
    is_damaged: bool,
}

impl Brackets {
    /// The next line.
    fn scan(&mut self, line: &[u8]) {
        let mut escaped = false;
        for &byte in line {
            match (self.in_text, byte) {
                _ if escaped => escaped = false,
                (true, b'\\') => escaped = true,
                (true, b'"') => self.in_text = false,
                (true, _) => {}
                (false, b'"') => self.in_text = true,
                (false, b'{' | b'[') => self.depth += 1,
                (false, b'}' | b']') => match self.depth.checked_sub(1) {
                    Some(depth) => self.depth = depth,
                    None => self.is_damaged = true,
                },
                (false, _) => {}
            }
        }
        // No string goes on in the next line.
        self.is_damaged |= self.in_text;
    }

    fn is_closed(&self) -> bool {
        self.depth == 0 && !self.is_damaged
    }

    /// Whether the document goes on in the next line.
    fn go_on(&self) -> bool {
        self.depth > 0 && !self.is_damaged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> Vec<(usize, String)> {
        let mut documents = Documents::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some(document) = documents.next().unwrap() {
            found.push((document.line, String::from_utf8(document.text).unwrap()));
        }
        found
    }

    #[track_caller]
    fn assert_documents(text: &str, wanted: &[(usize, &str)]) {
        let found = documents(text);
        let found: Vec<(usize, &str)> = found.iter().map(|(line, text)| (*line, &**text)).collect();
        assert_eq!(found, wanted, "{text:?}");
    }

    #[test]
    fn lines_are_documents_if_the_first_one_is() {
        assert_documents("{}\n\n{\n}\n", &[(0, "{}"), (2, "{"), (3, "}")]);
        assert_documents("broken\n{\n", &[(0, "broken"), (1, "{")]);
        assert_documents("}\n{\n", &[(0, "}"), (1, "{")]);
    }

    #[test]
    fn a_document_goes_on_until_its_brackets_are_closed() {
        assert_documents("\n{\n \"a\": [1,\n2]\n}\n", &[(1, "{\n \"a\": [1,\n2]\n}")]);
        // Brackets in strings are text.
        assert_documents("{\n\"]}\\\"}\": 1}\n", &[(0, "{\n\"]}\\\"}\": 1}")]);
        assert_documents(
            "{\n}\n\n{}\n{\n\n}",
            &[(0, "{\n}"), (3, "{}"), (4, "{\n\n}")],
        );
        // The second one is cut off.
        assert_documents("{\n}\n{\n[\n", &[(0, "{\n}"), (2, "{\n[")]);
    }

    #[test]
    fn a_damaged_first_line_costs_one_document() {
        assert_documents("{\"a\":\n{}\n{\n", &[(0, "{\"a\":"), (1, "{}"), (2, "{")]);
        assert_documents("{\"a\n{}\n", &[(0, "{\"a"), (1, "{}")]);
        assert_documents("{\n\"a\n}\n", &[(0, "{"), (1, "\"a"), (2, "}")]);
    }

    #[test]
    fn a_document_without_end_takes_bounded_memory() {
        let line = format!("{}\n", "x".repeat(1 << 16));
        for opening in ["{\n}\n{\n", "{\n"] {
            let text = opening
                .as_bytes()
                .chain(io::repeat(b'\n').take(1 << 10))
                .chain(line.as_bytes());
            let endless = (0..63).fold(Box::new(text) as Box<dyn Read>, |text, _| {
                Box::new(text.chain(line.as_bytes()))
            });
            let mut documents = Documents::new(io::BufReader::new(endless));
            while let Some(document) = documents.next().unwrap() {
                assert!(document.text.len() <= MAX_DOCUMENT + line.len() + 1);
                let ahead: usize = documents.ahead.iter().map(Vec::len).sum();
                assert!(ahead <= MAX_DOCUMENT + line.len() + 1, "{ahead} bytes");
            }
        }
    }
}
