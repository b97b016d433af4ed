//! Reads JSON without serde_json, so that what is accepted and what a filter finds do not depend on the features of
//! serde_json that a user's build enables (`arbitrary_precision`, `unbounded_depth`, …).
//!
//! Nothing here is recursive, so no text can exhaust the stack.

use std::borrow::Cow;

/// The maximum nesting depth of arrays and objects: exactly what serde_json reads by default.
pub(super) const MAX_DEPTH: u32 = 127;

/// Why a text is rejected, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) flaw: Flaw,
    /// The byte at which this was detected.
    pub(super) at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    Syntax,
    /// Half of a surrogate pair of `\u` escapes, which is not a character.
    LoneSurrogate,
    TooDeep,
}

/// A scalar, or the start of an object or array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Object,
    Array,
    Text(Text<'a>),
    /// The number as written.
    Number(&'a str),
    Bool(bool),
    Null,
}

/// A string as written, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text<'a> {
    raw: &'a str,
    has_escapes: bool,
}

/// Scans one JSON text from start to end.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Checks that the text is one JSON value, and returns its first token.
    pub(super) fn check(text: &'a str) -> Result<Token<'a>, Invalid> {
        let mut scanner = Self::new(text);
        let first = Self::new(text).token();
        scanner.skip()?;
        match scanner.peek() {
            None => first,
            Some(_) => Err(scanner.flaw(Flaw::Syntax)),
        }
    }

    /// Reads a scalar, or the opening bracket of an object or array.
    pub(super) fn token(&mut self) -> Result<Token<'a>, Invalid> {
        match self.peek() {
            Some(b'{') => Ok(self.opened(Token::Object)),
            Some(b'[') => Ok(self.opened(Token::Array)),
            Some(b'"') => self.text().map(Token::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Token::Number),
            Some(b't') => self.word("true", Token::Bool(true)),
            Some(b'f') => self.word("false", Token::Bool(false)),
            Some(b'n') => self.word("null", Token::Null),
            _ => Err(self.flaw(Flaw::Syntax)),
        }
    }

    /// Skips one value with all of its parts.
    pub(super) fn skip(&mut self) -> Result<(), Invalid> {
        let first = self.token()?;
        self.skip_rest_of(first)
    }

    /// Skips the rest of a value after its first token.
    pub(super) fn skip_rest_of(&mut self, first: Token<'a>) -> Result<(), Invalid> {
        // One bit for each open bracket, the innermost one last; set for an object.
        let (mut open, mut depth) = (0_u128, 0);
        let mut token = first;
        loop {
            let is_object = token == Token::Object;
            let has_parts = is_object || token == Token::Array;
            if has_parts && depth == MAX_DEPTH {
                return Err(self.flaw(Flaw::TooDeep));
            }
            if has_parts && !self.closes(is_object) {
                (open, depth) = (open << 1 | u128::from(is_object), depth + 1);
                if is_object {
                    self.key()?;
                }
                token = self.token()?;
                continue;
            }
            // The value is complete; close what ends with it.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let in_object = open & 1 == 1;
                if self.eat(b',') {
                    if in_object {
                        self.key()?;
                    }
                    token = self.token()?;
                    break;
                }
                if !self.closes(in_object) {
                    return Err(self.flaw(Flaw::Syntax));
                }
                (open, depth) = (open >> 1, depth - 1);
            }
        }
    }

    /// Reads a key and the colon after it.
    pub(super) fn key(&mut self) -> Result<Text<'a>, Invalid> {
        if self.peek() != Some(b'"') {
            return Err(self.flaw(Flaw::Syntax));
        }
        let key = self.text()?;
        if self.eat(b':') { Ok(key) } else { Err(self.flaw(Flaw::Syntax)) }
    }

    /// Whether an object (or an array) ends here; consumes the bracket.
    pub(super) fn closes(&mut self, is_object: bool) -> bool {
        self.eat(if is_object { b'}' } else { b']' })
    }

    /// Consumes a byte if it comes next, after white space.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn flaw(&self, flaw: Flaw) -> Invalid {
        Invalid { flaw, at: self.at }
    }

    fn opened(&mut self, token: Token<'a>) -> Token<'a> {
        self.at += 1;
        token
    }

    /// The next byte after white space, not consumed.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.byte()
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The text from `start` to here; both lie before or after an ASCII byte.
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>, Invalid> {
        for expected in word.bytes() {
            if self.byte() != Some(expected) {
                return Err(self.flaw(Flaw::Syntax));
            }
            self.at += 1;
        }
        Ok(token)
    }

    fn number(&mut self) -> Result<&'a str, Invalid> {
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(self.since(start))
    }

    /// Reads one or more digits.
    fn digits(&mut self) -> Result<(), Invalid> {
        let start = self.at;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.flaw(Flaw::Syntax)) } else { Ok(()) }
    }

    fn text(&mut self) -> Result<Text<'a>, Invalid> {
        self.at += 1;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            match self.byte() {
                Some(b'"') => {
                    let raw = self.since(start);
                    self.at += 1;
                    return Ok(Text { raw, has_escapes });
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                Some(b' '..) => self.at += 1,
                Some(_) | None => return Err(self.flaw(Flaw::Syntax)),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Invalid> {
        let start = self.at;
        self.at += 2;
        match self.text.as_bytes().get(start + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => {
                let first = self.hex()?;
                let is_pair = || {
                    let mut rest = Self { text: self.text, at: self.at };
                    rest.text.get(rest.at..rest.at + 2) == Some("\\u") && {
                        rest.at += 2;
                        matches!(rest.hex(), Ok(0xdc00..=0xdfff))
                    }
                };
                match first {
                    0xd800..=0xdbff if is_pair() => self.at += 6,
                    0xd800..=0xdfff => return Err(Invalid { flaw: Flaw::LoneSurrogate, at: start }),
                    _ => {}
                }
                Ok(())
            }
            _ => Err(Invalid { flaw: Flaw::Syntax, at: start }),
        }
    }

    fn hex(&mut self) -> Result<u32, Invalid> {
        let digits = self.text.get(self.at..self.at + 4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or(self.flaw(Flaw::Syntax))?;
        self.at += 4;
        Ok(code)
    }
}

impl<'a> Text<'a> {
    /// The text with its escapes resolved.
    pub(super) fn unescaped(self) -> Cow<'a, str> {
        if !self.has_escapes {
            return Cow::Borrowed(self.raw);
        }
        let mut meant = String::with_capacity(self.raw.len());
        let mut units = Vec::new();
        let mut rest = self.raw;
        while let Some((before, after)) = rest.split_once('\\') {
            meant.push_str(before);
            let mut chars = after.chars();
            let escaped = match chars.next() {
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('u') => {
                    // One unit, or the two of a pair; the scanner has rejected halves.
                    units.clear();
                    let mut left = after;
                    while let Some(unit) = left.strip_prefix('u').and_then(|hex| hex.get(..4)) {
                        units.push(u16::from_str_radix(unit, 16).unwrap_or_default());
                        left = left.get(5..).unwrap_or_default();
                        if units.len() == 2 || !matches!(units.first(), Some(0xd800..=0xdbff)) {
                            break;
                        }
                        left = left.strip_prefix('\\').unwrap_or_default();
                    }
                    meant.push_str(&String::from_utf16_lossy(&units));
                    rest = left;
                    continue;
                }
                Some(itself) => itself,
                None => break,
            };
            meant.push(escaped);
            rest = chars.as_str();
        }
        meant.push_str(rest);
        Cow::Owned(meant)
    }

    pub(super) fn is(self, text: &str) -> bool {
        if self.has_escapes { self.unescaped() == text } else { self.raw == text }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn flaw(text: &str) -> Option<Flaw> {
        Scanner::check(text).err().map(|invalid| invalid.flaw)
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "0x1",
            "tru",
            "nulll",
            "NaN",
            "Infinity",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\u+123\"",
            "\"\n\"",
            "[1]]",
            "{} {}",
            "[}",
            "{]",
            "'a'",
            "\u{feff}{}",
            "{\"a\":1]",
            "[\"\\u2603",
            "\"\\u",
        ] {
            assert_eq!(flaw(text), Some(Flaw::Syntax), "{text}");
            assert!(serde_json::from_str::<IgnoredAny>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn half_a_character_is_refused_wherever_it_stands() {
        for text in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#"{"\uD83D": 1}"#,
            r#""\ud83dx""#,
            r#""\ud83d\n""#,
            r#""\ud83d\ud83d\ude00""#,
            r#""\ude00\ud83d""#,
            r#"[{"a": ["\uDFFF"]}]"#,
        ] {
            assert_eq!(flaw(text), Some(Flaw::LoneSurrogate), "{text}");
        }
        assert_eq!(flaw(r#"{"\ud83d\ude00": "\uD83D\uDE00\ud7ff\ue000"}"#), None);
    }

    #[test]
    fn nesting_is_bounded_by_what_serde_json_reads() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
            for levels in [1, 126, 127, 128, 129, 1_000_000] {
                let (each, open) = (open.matches(['[', '{']).count(), open.repeat(levels));
                // The innermost value may be empty.
                let text = format!("{open}1{}", close.repeat(levels)).replace("[1]", "[]");
                let expected = (levels * each > 127).then_some(Flaw::TooDeep);
                assert_eq!(flaw(&text), expected, "{levels} times {open:.5}");
                if levels < 1_000 {
                    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).is_err(), expected.is_some());
                }
            }
        }
    }

    #[test]
    fn a_text_means_what_serde_json_says() {
        for text in [
            r#""""#,
            r#""plain ☃""#,
            r#""\"\\\/\b\f\n\r\t""#,
            r#""\u0000\u0041\u00e9\u2603""#,
            r#""a\ud83d\ude00b\u0041""#,
            r#""\\u0041""#,
            r#""\ud83d\ude00\ud83d\ude00""#,
            r#""☃\n☃""#,
        ] {
            let Ok(Token::Text(scanned)) = Scanner::check(text) else { panic!("{text} is a text") };
            assert_eq!(scanned.unescaped(), serde_json::from_str::<String>(text).unwrap(), "{text}");
        }
    }

    /// Fragments of JSON texts, combined with no regard to the grammar.
    fn fragments() -> impl Strategy<Value = String> {
        let fragment = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"\\u0041\"",
            "\"",
            "\\",
            "1",
            "-0",
            "1.5e3",
            "0",
            "true",
            "null",
            " ",
            "\n",
            "é",
            "\\n",
            "e",
            ".",
            "-",
        ]);
        prop::collection::vec(fragment, 0..12).prop_map(|fragments| fragments.concat())
    }

    proptest! {
        #[test]
        fn it_takes_what_serde_json_takes(text in fragments()) {
            prop_assert_eq!(Scanner::check(&text).is_ok(), serde_json::from_str::<IgnoredAny>(&text).is_ok());
        }

        #[test]
        fn no_text_makes_it_panic(text in r#"[\[\]{}:,"\\ud89ef0-9 tnxé]{0,40}"#) {
            let _: Result<Token<'_>, Invalid> = Scanner::check(&text);
        }
    }
}
