//! A shape that was read back from its text.

/// The shape of a payload, read back from the text that a store keeps beside the payload's type.
///
/// With it a payload becomes JSON without its Rust type: see [`Self::to_json`].
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
    /// Parts, and how many of a kind stand in a row.
    Tuple(Vec<(NodeId, u64)>),
    Struct(Vec<(String, NodeId)>),
    /// Variants, with what they hold unless they are unit variants.
    Enum {
        variants: Vec<(String, Option<NodeId>)>,
        /// Some names are aliases, so a number does not lead to a name.
        is_aliased: bool,
    },
    /// The type around it that it is again.
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
