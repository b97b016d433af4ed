//! Fields that borrow: stored values are decoded from bytes that are not kept.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Field, PathSegment, Type, TypeBareFn, TypeReference};

use crate::ctxt::Ctxt;
use crate::generate::{at, without_self};
use crate::serde_attr::SerdeKeys;

/// Whether serde reads the field with its type's own `Deserialize`.
fn is_read(field: &Field) -> bool {
    !SerdeKeys::of(&field.attrs).has_any(&["with", "deserialize_with", "skip", "skip_deserializing"])
}

/// Refuses references in a field that is read back; `what` is the item that must own its data.
pub(crate) fn check(ctxt: &mut Ctxt, field: &Field, what: &str) {
    struct References<'a> {
        ctxt: &'a mut Ctxt,
        what: &'a str,
    }
    impl<'ast> Visit<'ast> for References<'_> {
        fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
            let owned = match &*reference.elem {
                Type::Path(path) if path.path.is_ident("str") => "`String`, or `Cow<'static, str>`,",
                Type::Slice(_) => "`Vec`, or `Cow<'static, […]>`,",
                _ => "the type itself",
            };
            let what = self.what;
            self.ctxt.error(
                reference,
                format_args!(
                    "{what} must own its data, because it is decoded from bytes that are gone afterwards: \
                     write {owned} instead of a reference"
                ),
            );
        }
        // A type that is only mentioned holds no data.
        fn visit_type_bare_fn(&mut self, _: &'ast TypeBareFn) {}
        fn visit_path_segment(&mut self, segment: &'ast PathSegment) {
            if segment.ident != "PhantomData" {
                visit::visit_path_segment(self, segment);
            }
        }
    }
    if is_read(field) {
        References { ctxt, what }.visit_type(&field.ty);
    }
}

/// A line that fails to compile, at the field, if its type mentions `'static` and borrows inside.
pub(crate) fn assertion(private: &TokenStream, field: &Field, this: &TokenStream) -> Option<TokenStream> {
    struct Static(bool);
    impl<'ast> Visit<'ast> for Static {
        fn visit_lifetime(&mut self, lifetime: &'ast syn::Lifetime) {
            self.0 |= lifetime.ident == "static";
        }
    }
    let mut names_static = Static(false);
    names_static.visit_type(&field.ty);
    (names_static.0 && is_read(field)).then(|| {
        let ty = without_self(&field.ty, this);
        let is_owned = at(field.ty.span(), quote!(#private::is_owned));
        let call = quote_spanned!(field.ty.span()=> #is_owned::<#ty>());
        quote!(#call;)
    })
}
