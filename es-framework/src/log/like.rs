//! Patterns with `%`, `_` and `\`, case-sensitive.

/// Whether `text` matches `pattern`: `%` matches any run of characters, `_` exactly one, and `\` escapes the next one.
///
/// A `\` at the end stands for itself. Takes at most time in the order of `pattern × text`, because it only ever
/// backtracks to the last `%`.
pub(super) fn like(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Where to continue when a mismatch makes the last `%` consume one more character.
    let mut retry = None;
    loop {
        let mut ahead = pattern.clone();
        let here = ahead.next();
        if here == Some('%') {
            pattern = ahead;
            retry = Some((pattern.clone(), text.clone()));
            continue;
        }
        let wanted = match here {
            Some('\\') => Some(ahead.next().unwrap_or('\\')),
            other => other,
        };
        let mut rest = text.clone();
        let matched = match (wanted, rest.next()) {
            (None, None) => return true,
            (Some(_), Some(_)) if here == Some('_') => true,
            (Some(wanted), Some(found)) => wanted == found,
            (Some(_), None) => return false,
            (None, Some(_)) => false,
        };
        if matched {
            (pattern, text) = (ahead, rest);
            continue;
        }
        match &mut retry {
            None => return false,
            Some((after, from)) => {
                from.next();
                (pattern, text) = (after.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn patterns_are_case_sensitive_and_can_be_escaped() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("%", "", true),
            ("a%", "abc", true),
            ("A%", "abc", false),
            ("%c", "abc", true),
            ("%b%", "abc", true),
            ("a_c", "abc", true),
            ("a_c", "ac", false),
            ("_", "é", true),
            (r"100\%", "100%", true),
            (r"100\%", "1000", false),
            (r"a\_b", "a_b", true),
            (r"a\_b", "axb", false),
            (r"\\", r"\", true),
            (r"\", r"\", true),
            ("%ab%ab", "abxabab", true),
            ("%ab%ab", "abxaba", false),
            ("%%", "x", true),
            ("a%_", "a", false),
        ] {
            assert_eq!(like(pattern, text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = "%a".repeat(60) + "b";
        assert!(!like(&pattern, &"a".repeat(20_000)));
    }
}
