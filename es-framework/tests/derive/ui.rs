//! What the compiler says of a mistake, one mistake a file in `tests/ui`.

#[test]
fn every_mistake_is_said_on_the_user_s_own_token() {
    let cases = trybuild::TestCases::new();
    match (cfg!(feature = "bincode"), cfg!(feature = "json")) {
        (true, true) => cases.compile_fail("tests/ui/*.rs"),
        // The compiler lists the codecs there are.
        (true, false) => {
            cases.compile_fail("tests/ui/*.rs");
            cases.compile_fail("tests/ui/default_features/*.rs");
            cases.compile_fail("tests/ui/no_json/*.rs");
        }
        (false, true) => cases.compile_fail("tests/ui/no_bincode/*.rs"),
        (false, false) => {}
    }
}
