//! Owns the table of ggml's tensor types: how large a block is and whether weights may be stored so.

/// How the values of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// ggml's number for it.
    pub id: u32,
    pub name: &'static str,
    /// Values in a block.
    pub block: u64,
    /// Bytes of a block.
    pub bytes: u64,
    /// False for types that exist only as intermediate results or as integers: engines abort on
    /// weights of these.
    pub weights: bool,
    /// Where a block has half-precision scales, in bytes from its start.
    pub scales: &'static [usize],
}

const fn weights(
    id: u32,
    name: &'static str,
    block: u64,
    bytes: u64,
    scales: &'static [usize],
) -> TensorType {
    TensorType { id, name, block, bytes, weights: true, scales }
}

const fn other(id: u32, name: &'static str, block: u64, bytes: u64) -> TensorType {
    TensorType { id, name, block, bytes, weights: false, scales: &[] }
}

const TYPES: &[TensorType] = &[
    weights(0, "F32", 1, 4, &[]),
    weights(1, "F16", 1, 2, &[0]),
    weights(2, "Q4_0", 32, 18, &[0]),
    weights(3, "Q4_1", 32, 20, &[0, 2]),
    weights(6, "Q5_0", 32, 22, &[0]),
    weights(7, "Q5_1", 32, 24, &[0, 2]),
    weights(8, "Q8_0", 32, 34, &[0]),
    other(9, "Q8_1", 32, 40),
    weights(10, "Q2_K", 256, 84, &[80, 82]),
    weights(11, "Q3_K", 256, 110, &[108]),
    weights(12, "Q4_K", 256, 144, &[0, 2]),
    weights(13, "Q5_K", 256, 176, &[0, 2]),
    weights(14, "Q6_K", 256, 210, &[208]),
    other(15, "Q8_K", 256, 292),
    weights(16, "IQ2_XXS", 256, 66, &[0]),
    weights(17, "IQ2_XS", 256, 74, &[0]),
    weights(18, "IQ3_XXS", 256, 98, &[0]),
    weights(19, "IQ1_S", 256, 50, &[0]),
    weights(20, "IQ4_NL", 32, 18, &[0]),
    weights(21, "IQ3_S", 256, 110, &[0]),
    weights(22, "IQ2_S", 256, 82, &[0]),
    weights(23, "IQ4_XS", 256, 136, &[0]),
    other(24, "I8", 1, 1),
    other(25, "I16", 1, 2),
    other(26, "I32", 1, 4),
    other(27, "I64", 1, 8),
    other(28, "F64", 1, 8),
    weights(29, "IQ1_M", 256, 56, &[]),
    weights(30, "BF16", 1, 2, &[]),
    weights(34, "TQ1_0", 256, 54, &[52]),
    weights(35, "TQ2_0", 256, 66, &[64]),
    weights(39, "MXFP4", 32, 17, &[]),
    weights(40, "NVFP4", 64, 36, &[]),
    weights(41, "Q1_0", 128, 18, &[0]),
];

/// Full precision: what norms and biases must be.
pub const F32: u32 = 0;
pub const F16: u32 = 1;
pub const BF16: u32 = 30;

/// The type with this number, unless it is unknown or was removed from ggml.
pub fn tensor_type(id: u32) -> Option<&'static TensorType> {
    TYPES.iter().find(|kind| kind.id == id)
}

/// The name of `general.file_type`: what people call the file's quantisation.
pub fn file_type_name(id: u64) -> Option<&'static str> {
    Some(match id & !1024 {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        39 => "NVFP4",
        40 => "Q1_0",
        _ => return None,
    })
}
