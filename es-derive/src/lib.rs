//! The derives of `es-framework`.
