//! Parses the text of a shape.

use std::fmt;

use super::stored::{Node, NodeId, Plain, StoredShape};

/// The maximum number of levels of a shape; the tracer goes 64 deep.
const MAX_DEPTH: usize = 128;

/// A text that is not a shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidShape {
    /// Something else was expected.
    #[error("this is not a shape: {expected} was expected at byte {at}")]
    Syntax {
        /// The byte offset.
        at: usize,
        /// What was expected there.
        expected: &'static str,
    },
    /// `^n` points beyond the outermost type.
    #[error("this is not a shape: the reference at byte {at} leads beyond the outermost type")]
    Beyond {
        /// The byte after the reference.
        at: usize,
    },
    /// The text is nested too deep.
    #[error("a shape has at most {MAX_DEPTH} levels, but this one goes on at byte {at}")]
    TooDeep {
        /// The byte offset.
        at: usize,
    },
}

impl StoredShape {
    /// Parses a text from [`Shape::as_str`](super::Shape::as_str), as kept by a store.
    ///
    /// # Errors
    ///
    /// [`InvalidShape`] with the byte offset if the text is not a shape. Takes time and memory proportional to the
    /// length of the text, whatever it contains.
    pub fn parse(text: &str) -> Result<Self, InvalidShape> {
        let mut parser = Parser { rest: text, length: text.len(), nodes: Vec::new(), levels: Vec::new() };
        let root = parser.node()?;
        if parser.rest.is_empty() { Ok(Self { nodes: parser.nodes, root }) } else { parser.expected("the end") }
    }
}

struct Parser<'a> {
    rest: &'a str,
    length: usize,
    nodes: Vec<Node>,
    /// The types around the one being read, the outermost first.
    levels: Vec<NodeId>,
}

impl Parser<'_> {
    fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, InvalidShape> {
        Err(InvalidShape::Syntax { at: self.at(), expected })
    }

    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take(&mut self, token: &'static str) -> Result<(), InvalidShape> {
        if self.eat(token) { Ok(()) } else { self.expected(token) }
    }

    /// Takes characters while they are `wanted`.
    fn run(&mut self, wanted: impl Fn(char) -> bool) -> &str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        run
    }

    fn number<N: std::str::FromStr>(&mut self) -> Result<N, InvalidShape> {
        let number = self.run(|c| c.is_ascii_digit()).parse();
        number.or_else(|_| self.expected("a number"))
    }

    fn leaf(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Reads the content of a level.
    fn level(&mut self, read: impl FnOnce(&mut Self) -> Result<Node, InvalidShape>) -> Result<NodeId, InvalidShape> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(InvalidShape::TooDeep { at: self.at() });
        }
        // References inside point to this node before its content is known.
        let id = self.leaf(Node::Opaque);
        self.levels.push(id);
        let node = read(self)?;
        self.levels.pop();
        if let Some(place) = self.nodes.get_mut(id) {
            *place = node;
        }
        Ok(id)
    }

    fn node(&mut self) -> Result<NodeId, InvalidShape> {
        if self.eat("?") {
            return self.level(|parser| Ok(Node::Option(parser.node()?)));
        }
        if self.eat("()") {
            return Ok(self.leaf(Node::Unit));
        }
        if self.eat("(") {
            return self.level(Self::tuple);
        }
        if self.eat("[") {
            return self.level(Self::list);
        }
        if self.eat("{") {
            return self.level(Self::fields);
        }
        if self.eat("^") {
            let levels: usize = self.number()?;
            let outer = self.levels.len().checked_sub(levels).filter(|_| levels > 0);
            let target = outer.and_then(|outer| self.levels.get(outer)).copied();
            let target = target.ok_or(InvalidShape::Beyond { at: self.at() })?;
            return Ok(self.leaf(Node::Back(target)));
        }
        if self.eat("enum*{") {
            return self.level(|parser| Ok(Node::Enum { variants: parser.variants()?, is_aliased: true }));
        }
        if self.eat("enum{") {
            return self.level(|parser| Ok(Node::Enum { variants: parser.variants()?, is_aliased: false }));
        }
        let before = self.rest;
        let node = match self.run(|c| c.is_ascii_alphanumeric()) {
            "opaque" => Some(Node::Opaque),
            "any" => Some(Node::Any),
            word => Plain::named(word).map(Node::Plain),
        };
        let Some(node) = node else {
            self.rest = before;
            return self.expected("a type");
        };
        Ok(self.leaf(node))
    }

    /// `T)`, `T,)`, `A,B)`, `T;32)`, `A,T;32,B)`.
    fn tuple(&mut self) -> Result<Node, InvalidShape> {
        let mut parts = Vec::new();
        loop {
            let part = self.node()?;
            if parts.is_empty() && self.eat(")") {
                return Ok(Node::Newtype(part));
            }
            let times = if self.eat(";") { self.number()? } else { 1 };
            parts.push((part, times));
            if self.eat(")") {
                return Ok(Node::Tuple(parts));
            }
            self.take(",")?;
            if parts.len() == 1 && self.eat(")") {
                return Ok(Node::Tuple(parts));
            }
        }
    }

    /// `T]`, `K:V]`.
    fn list(&mut self) -> Result<Node, InvalidShape> {
        let first = self.node()?;
        let node = if self.eat(":") { Node::Map(first, self.node()?) } else { Node::Seq(first) };
        self.take("]")?;
        Ok(node)
    }

    /// `a:A,b:B}`.
    fn fields(&mut self) -> Result<Node, InvalidShape> {
        let mut fields = Vec::new();
        if self.eat("}") {
            return Ok(Node::Struct(fields));
        }
        loop {
            let name = self.name()?;
            self.take(":")?;
            fields.push((name, self.node()?));
            if self.eat("}") {
                return Ok(Node::Struct(fields));
            }
            self.take(",")?;
        }
    }

    /// `A,B(T),C(T,U),D{x:X}}`.
    fn variants(&mut self) -> Result<Vec<(String, Option<NodeId>)>, InvalidShape> {
        let mut variants = Vec::new();
        if self.eat("}") {
            return Ok(variants);
        }
        loop {
            let name = self.name()?;
            let has_parts = self.rest.starts_with(['(', '{']);
            variants.push((name, if has_parts { Some(self.node()?) } else { None }));
            if self.eat("}") {
                return Ok(variants);
            }
            self.take(",")?;
        }
    }

    fn name(&mut self) -> Result<String, InvalidShape> {
        if self.eat("\"") {
            return self.quoted();
        }
        let name = self.run(|c| c.is_alphanumeric() || c == '_').to_owned();
        if name.is_empty() { self.expected("a name") } else { Ok(name) }
    }

    /// Parses text from [`str::escape_debug`], and the closing quote.
    fn quoted(&mut self) -> Result<String, InvalidShape> {
        let mut name = String::new();
        loop {
            name.push_str(self.run(|c| c != '"' && c != '\\'));
            if self.eat("\"") {
                return Ok(name);
            }
            self.take("\\")?;
            if self.eat("u{") {
                let digits = self.run(|c| c.is_ascii_hexdigit());
                let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                match code {
                    Some(c) => name.push(c),
                    None => return self.expected("the number of a character"),
                }
                self.take("}")?;
                continue;
            }
            let mut chars = self.rest.chars();
            name.push(match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('0') => '\0',
                Some(c @ ('"' | '\'' | '\\')) => c,
                _ => return self.expected("an escape"),
            });
            self.rest = chars.as_str();
        }
    }
}

/// Writes the text from which it was parsed.
impl fmt::Display for StoredShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(self.root, &mut Vec::new(), f)
    }
}

impl StoredShape {
    fn write(&self, id: NodeId, levels: &mut Vec<NodeId>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(node) = self.nodes.get(id) else { return Ok(()) };
        levels.push(id);
        match node {
            Node::Plain(plain) => f.write_str(plain.name())?,
            Node::Unit => f.write_str("()")?,
            Node::Option(inner) => {
                f.write_str("?")?;
                self.write(*inner, levels, f)?;
            }
            Node::Seq(inner) => {
                f.write_str("[")?;
                self.write(*inner, levels, f)?;
                f.write_str("]")?;
            }
            Node::Map(key, value) => {
                f.write_str("[")?;
                self.write(*key, levels, f)?;
                f.write_str(":")?;
                self.write(*value, levels, f)?;
                f.write_str("]")?;
            }
            Node::Newtype(inner) => {
                f.write_str("(")?;
                self.write(*inner, levels, f)?;
                f.write_str(")")?;
            }
            Node::Tuple(parts) => {
                for (i, (part, times)) in parts.iter().enumerate() {
                    f.write_str(if i == 0 { "(" } else { "," })?;
                    self.write(*part, levels, f)?;
                    if *times != 1 {
                        write!(f, ";{times}")?;
                    }
                }
                f.write_str(if matches!(**parts, [(_, 1)]) { ",)" } else { ")" })?;
            }
            Node::Struct(fields) => {
                f.write_str("{")?;
                for (i, (name, field)) in fields.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { "," })?;
                    super::render::write_name(name, f)?;
                    f.write_str(":")?;
                    self.write(*field, levels, f)?;
                }
                f.write_str("}")?;
            }
            Node::Enum { variants, is_aliased } => {
                f.write_str(if *is_aliased { "enum*{" } else { "enum{" })?;
                for (i, (name, content)) in variants.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { "," })?;
                    super::render::write_name(name, f)?;
                    content.map_or(Ok(()), |content| self.write(content, levels, f))?;
                }
                f.write_str("}")?;
            }
            Node::Back(target) => {
                // Its own level was pushed as well.
                let outer = levels.iter().rposition(|level| level == target).unwrap_or_default();
                write!(f, "^{}", levels.len() - 1 - outer)?;
            }
            Node::Opaque => f.write_str("opaque")?,
            Node::Any => f.write_str("any")?,
        }
        levels.pop();
        Ok(())
    }
}
