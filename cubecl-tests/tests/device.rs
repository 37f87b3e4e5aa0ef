//! Says what the tests run on: `cargo test --test device -- --nocapture`.

use cubecl_server::runtime::Runtime;
use pontoon_cubecl_tests::TestRuntime;

#[test]
fn the_device_answers() {
    let client = TestRuntime::client(&Default::default());
    println!("{:#?}", client.properties());
    let handle = client.create_from_slice(&[1, 2, 3, 4]);
    assert_eq!(&client.read_one(handle).unwrap()[..], &[1, 2, 3, 4]);
}
