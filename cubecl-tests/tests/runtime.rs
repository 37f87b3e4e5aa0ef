//! CubeCL's runtime tests with the types for which `cubecl-wgpu` runs them on WGSL itself.

// The macros reach for what stands around their module: they cannot be at the root of a crate.
#[cfg(test)]
mod wgsl {
    use half::f16;
    pub use pontoon_cubecl_tests::TestRuntime;

    cubecl_core::testgen_all!(f32: [f16, f32], i32: [i32, i64], u32: [u32, u64]);
    cubecl_std::testgen!();
    cubecl_std::testgen_tensor_identity!([flex32, f32, u32]);
    cubecl_std::testgen_quantized_view!(f32);
    cubecl_core::testgen_profiling!();
    cubecl_core::testgen_complex_validation!();
}
