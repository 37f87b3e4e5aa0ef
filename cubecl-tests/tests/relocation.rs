//! CubeCL's test of memory that is moved; it looks at all of a process's memory, so it is alone here.

use cubecl_core::runtime_tests::relocation;
use pontoon_cubecl_tests::TestRuntime;

#[test]
fn relocation_moves_live_bytes_off_outdated_pages() {
    relocation::relocation_moves_live_bytes_off_outdated_pages::<TestRuntime>();
}
