//! What the compiler says of a mistake, one mistake a file in `tests/ui`.

#[test]
fn every_mistake_is_said_on_the_user_s_own_token() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
