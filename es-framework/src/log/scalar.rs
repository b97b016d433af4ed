//! Values inside metadata: their paths, the values themselves, and their lookup.

use super::json::{Invalid, Scanner, Token};

/// A path into metadata: keys from the outside in, separated by dots, for example `customer.country`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<String>);

impl Path {
    /// Creates a path from single keys, which may themselves contain dots.
    pub fn of_keys(keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(keys.into_iter().map(Into::into).collect())
    }

    /// The keys, from the outside in.
    pub(super) fn keys(&self) -> &[String] {
        &self.0
    }
}

impl From<&str> for Path {
    fn from(dotted: &str) -> Self {
        Self::of_keys(dotted.split('.'))
    }
}

impl From<String> for Path {
    fn from(dotted: String) -> Self {
        dotted.as_str().into()
    }
}

/// A JSON value that is not an object or an array.
///
/// Scalars of different types are never equal: `1` is not `"1"` and not `true`. Numbers are equal by value: `1` is `1.0`.
///
/// A number in metadata without a fraction or an exponent is an integer if it fits an [`i128`]. Any other number is the
/// nearest [`f64`]; beyond the range of `f64`, as in `1e400`, it equals no scalar. This does not depend on the features
/// of `serde_json`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Scalar {
    /// `null`; a path that leads nowhere is not `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Integer(i128),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A string.
    Text(String),
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::Integer(a), Self::Float(b)) | (Self::Float(b), Self::Integer(a)) => integer_is_float(*a, *b),
            (Self::Text(a), Self::Text(b)) => a == b,
            _ => false,
        }
    }
}

/// Compares exactly: above 2^53 not every integer has a float of its own.
fn integer_is_float(integer: i128, float: f64) -> bool {
    // A float without a fraction prints as an integer; one beyond i128 does not parse.
    float.fract() == 0.0 && float.abs() < 1e39 && format!("{float:.0}").parse() == Ok(integer)
}

impl From<()> for Scalar {
    fn from((): ()) -> Self {
        Self::Null
    }
}

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Scalar {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Scalar {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<f64> for Scalar {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Scalar {
            fn from(value: $integer) -> Self {
                Self::Integer(value.into())
            }
        }
    )*};
}
integers!(i8, u8, i16, u16, i32, u32, i64, u64);

impl Scalar {
    /// The scalar for a token; [`None`] for the start of an object or array, and for numbers beyond the range of `f64`.
    fn of(token: Token<'_>) -> Option<Self> {
        match token {
            Token::Object | Token::Array => None,
            Token::Text(text) => Some(Self::Text(text.unescaped().into_owned())),
            Token::Number(text) => Self::of_number(text),
            Token::Bool(value) => Some(Self::Bool(value)),
            Token::Null => Some(Self::Null),
        }
    }

    fn of_number(text: &str) -> Option<Self> {
        // Parsing as an integer fails on a fraction or an exponent.
        if let Ok(integer) = text.parse() {
            return Some(Self::Integer(integer));
        }
        text.parse().ok().filter(|float: &f64| float.is_finite()).map(Self::Float)
    }
}

/// Returns the scalar at a path of a JSON text, if there is one. If a key is repeated, the last one counts.
///
/// Only the path is examined, so the rest may hold anything.
pub(super) fn scalar_at<K: AsRef<str>>(json: &str, path: &[K]) -> Option<Scalar> {
    find(&mut Scanner::new(json), path).ok().flatten()
}

fn find<K: AsRef<str>>(scanner: &mut Scanner<'_>, path: &[K]) -> Result<Option<Scalar>, Invalid> {
    let first = scanner.token()?;
    if path.is_empty() {
        return Ok(Scalar::of(first));
    }
    if first != Token::Object || scanner.closes(true) {
        return Ok(None);
    }
    let mut found = None;
    // How many objects are open around the current one.
    let mut depth = 0;
    loop {
        let key = scanner.key()?;
        let token = scanner.token()?;
        let is_next = path.get(depth).is_some_and(|next| key.is(next.as_ref()));
        if is_next {
            found = (depth + 1 == path.len()).then(|| Scalar::of(token)).flatten();
        }
        if is_next && depth + 1 < path.len() && token == Token::Object {
            if !scanner.closes(true) {
                depth += 1;
                continue;
            }
        } else {
            scanner.skip_rest_of(token)?;
        }
        while !scanner.eat(b',') {
            if !scanner.closes(true) {
                return Err(scanner.flaw(super::json::Flaw::Syntax));
            }
            if depth == 0 {
                return Ok(found);
            }
            depth -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn at(json: &str, path: &str) -> Option<Scalar> {
        scalar_at(json, Path::from(path).keys())
    }

    #[test]
    fn numbers_are_compared_by_value() {
        for (json, scalar, expected) in [
            ("1", Scalar::from(1), true),
            ("1", Scalar::from(1.0), true),
            ("1.0", Scalar::from(1), true),
            ("1e0", Scalar::from(1), true),
            ("10E-1", Scalar::from(1), true),
            ("-0", Scalar::from(0), true),
            ("-0.0", Scalar::from(0), true),
            ("0.1", Scalar::from(0.1), true),
            ("0.1", Scalar::from(0.2), false),
            ("3.25", Scalar::from(3.25), true),
            ("-2.5e-3", Scalar::from(-0.0025), true),
            ("18446744073709551615", Scalar::from(u64::MAX), true),
            ("18446744073709551615", Scalar::from(18_446_744_073_709_551_615.0), false),
            ("18446744073709551616", Scalar::from(18_446_744_073_709_551_616.0), true),
            ("18446744073709551617", Scalar::from(18_446_744_073_709_551_616.0), false),
            ("-9223372036854775808", Scalar::from(i64::MIN), true),
            ("170141183460469231731687303715884105727", Scalar::Integer(i128::MAX), true),
            ("9007199254740993", Scalar::from(9_007_199_254_740_992.0), false),
            ("9007199254740993", Scalar::from(9_007_199_254_740_993_i64), true),
            ("1e400", Scalar::from(f64::INFINITY), false),
            ("-1e400", Scalar::from(f64::NEG_INFINITY), false),
            ("1e300", Scalar::from(1e300), true),
        ] {
            assert_eq!(
                at(&format!(r#"{{"n": {json}}}"#), "n") == Some(scalar.clone()),
                expected,
                "{json} = {scalar:?}"
            );
        }
        let hundred_digits = format!(r#"{{"n": 1{}}}"#, "0".repeat(99));
        assert_eq!(at(&hundred_digits, "n"), Some(Scalar::from(1e99)));
    }

    /// A number that equals no scalar, or a key that serde_json uses internally, hides nothing else.
    #[test]
    fn odd_neighbours_hide_nothing() {
        let json = r#"{"huge": 1e400, "$serde_json::private::Number": "1", "a": {"$serde_json::private::RawValue": 2}, "n": 7}"#;
        assert_eq!(at(json, "n"), Some(Scalar::from(7)));
        assert_eq!(at(json, "huge"), None);
        assert_eq!(at(json, "$serde_json::private::Number"), Some(Scalar::from("1")));
        assert_eq!(at(json, "a.$serde_json::private::RawValue"), Some(Scalar::from(2)));
    }

    #[test]
    fn the_last_of_repeated_keys_counts_at_each_level() {
        assert_eq!(at(r#"{"a": 1, "a": 2}"#, "a"), Some(Scalar::from(2)));
        assert_eq!(at(r#"{"a": 1, "\u0061": 2}"#, "a"), Some(Scalar::from(2)));
        assert_eq!(at(r#"{"a": {"b": 1}, "a": {"c": 2}}"#, "a.b"), None);
        assert_eq!(at(r#"{"a": {"b": 1}, "a": 2}"#, "a.b"), None);
        assert_eq!(at(r#"{"a": 1, "a": [2]}"#, "a"), None);
        assert_eq!(at(r#"{"a": 2, "a": {"b": 1, "b": 3}}"#, "a.b"), Some(Scalar::from(3)));
        assert_eq!(at(r#"{"a": {"b": {"c": 1}}, "b": {"c": 2}, "c": 3}"#, "a.b.c"), Some(Scalar::from(1)));
        assert_eq!(at(r#"{"a": {"a": {}}, "b": 1}"#, "b"), Some(Scalar::from(1)));
        assert_eq!(at(r#"{"a": {}, "b": 1}"#, "a.b"), None);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            r#"[a-c"\\é😀\n]{0,4}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_finds_what_serde_json_finds(value in json(), path in prop::collection::vec("[a-c]", 0..4)) {
            let text = serde_json::to_string_pretty(&value).unwrap();
            let found = path.iter().try_fold(&value, |value, key| value.get(key.as_str()));
            let expected = match found {
                Some(Value::Null) => Some(Scalar::Null),
                Some(Value::Bool(value)) => Some(Scalar::Bool(*value)),
                Some(Value::String(text)) => Some(Scalar::from(text.as_str())),
                Some(Value::Number(number)) => match (number.as_i64(), number.as_u64()) {
                    (Some(integer), _) => Some(Scalar::from(integer)),
                    (_, Some(integer)) => Some(Scalar::from(integer)),
                    _ => number.as_f64().map(Scalar::from),
                },
                _ => None,
            };
            prop_assert_eq!(scalar_at(&text, &path), expected);
        }
    }
}
