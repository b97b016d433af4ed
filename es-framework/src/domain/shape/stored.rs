//! A shape parsed back from its text.

/// The shape of a payload, parsed from the text that a store keeps with the payload's type.
///
/// It turns a payload into JSON without its Rust type: see [`Self::to_json`].
#[derive(Debug, Clone)]
pub struct StoredShape {
    pub(super) nodes: Vec<Node>,
    pub(super) root: NodeId,
}

pub(super) type NodeId = usize;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Plain(Plain),
    Unit,
    Option(NodeId),
    Seq(NodeId),
    Map(NodeId, NodeId),
    Newtype(NodeId),
    /// Parts, each with the number of times it is repeated in a row.
    Tuple(Vec<(NodeId, u64)>),
    Struct(Vec<(String, NodeId)>),
    /// Variants, with their content unless they are unit variants.
    Enum {
        variants: Vec<(String, Option<NodeId>)>,
        /// Some names are aliases, so a number does not identify a name.
        is_aliased: bool,
    },
    /// A reference to the enclosing type of which this is another occurrence.
    Back(NodeId),
    Any,
    Opaque,
}

macro_rules! plain {
    ($($kind:ident $name:literal,)*) => {
        /// A value without parts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Plain {
            $($kind,)*
        }

        impl Plain {
            pub(super) fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$kind),)*
                    _ => None,
                }
            }

            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

plain! {
    Bool "bool",
    I8 "i8",
    I16 "i16",
    I32 "i32",
    I64 "i64",
    I128 "i128",
    U8 "u8",
    U16 "u16",
    U32 "u32",
    U64 "u64",
    U128 "u128",
    F32 "f32",
    F64 "f64",
    Char "char",
    Str "str",
    Bytes "bytes",
}
