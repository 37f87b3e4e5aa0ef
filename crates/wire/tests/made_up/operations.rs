//! The layout of every operation, said a second time, and bytes of valid operations after it.

use super::{Random, some_value};
use pontoon_wire::command::{BufferLocation, ComputePassDesc, RenderPassDesc, TextureLocation, Transitions};

/// Code, name, and fields: a digit is a number of that many bytes, `h` a handle, `?` makes the next one
/// optional, `i` an index format, `w` 32-bit numbers, `H` handles, `b` bytes, `s` text, `C` a compute pass,
/// `R` a render pass, `B` a place in a buffer, `T` one in a texture, `E` an extent, `G` a range, `N` transitions.
pub const LAYOUTS: [(u8, &str, &str); 40] = [
    (1, "SetComputePipeline", "h"),
    (2, "SetRenderPipeline", "h"),
    (3, "SetBindGroup", "4?hw"),
    (4, "SetImmediates", "4b"),
    (5, "Dispatch", "444"),
    (6, "DispatchIndirect", "h8"),
    (7, "SetIndexBuffer", "hi8?8"),
    (8, "SetVertexBuffer", "4?h8?8"),
    (9, "SetBlendConstant", "8888"),
    (10, "SetScissorRect", "4444"),
    (11, "SetViewport", "444444"),
    (12, "SetStencilReference", "4"),
    (13, "Draw", "4444"),
    (14, "DrawIndexed", "44444"),
    (15, "DrawIndirect", "h8"),
    (16, "DrawIndexedIndirect", "h8"),
    (17, "MultiDrawIndirect", "h84"),
    (18, "MultiDrawIndexedIndirect", "h84"),
    (19, "MultiDrawIndirectCount", "h8h84"),
    (20, "MultiDrawIndexedIndirectCount", "h8h84"),
    (21, "BeginOcclusionQuery", "4"),
    (22, "EndOcclusionQuery", ""),
    (23, "BeginPipelineStatisticsQuery", "h4"),
    (24, "EndPipelineStatisticsQuery", ""),
    (25, "ExecuteBundles", "H"),
    (26, "InsertDebugMarker", "s"),
    (27, "PushDebugGroup", "s"),
    (28, "PopDebugGroup", ""),
    (29, "WriteTimestamp", "h4"),
    (30, "BeginComputePass", "C"),
    (31, "BeginRenderPass", "R"),
    (32, "EndPass", ""),
    (33, "CopyBufferToBuffer", "h8h8?8"),
    (34, "CopyBufferToTexture", "BTE"),
    (35, "CopyTextureToBuffer", "TBE"),
    (36, "CopyTextureToTexture", "TTE"),
    (37, "ClearTexture", "hG"),
    (38, "ClearBuffer", "h8?8"),
    (39, "ResolveQuerySet", "h44h8"),
    (40, "TransitionResources", "N"),
];

/// Appends a valid operation with this layout, its handles from `handle`.
pub fn put(random: &mut Random, (code, _, layout): (u8, &str, &str), out: &mut Vec<u8>) {
    out.push(code);
    let mut present = true;
    for field in layout.chars() {
        if field == '?' {
            present = random.below(2) == 1;
            out.push(present.into());
        } else if std::mem::replace(&mut present, true) {
            put_field(random, field, out);
        }
    }
}

fn put_field(random: &mut Random, field: char, out: &mut Vec<u8>) {
    let some = random.below(5);
    match field {
        '4' => out.extend_from_slice(&(random.number() as u32).to_le_bytes()),
        '8' => out.extend_from_slice(&random.number().to_le_bytes()),
        'h' => put_handle(random, out),
        'i' => out.push(random.below(2) as u8),
        'w' => {
            out.extend_from_slice(&(some as u32).to_le_bytes());
            (0..some).for_each(|_| put_field(random, '4', out));
        }
        'H' => {
            out.extend_from_slice(&(some as u32).to_le_bytes());
            (0..some).for_each(|_| put_handle(random, out));
        }
        'b' => put_bytes(&vec![7; 4 * some as usize], out),
        's' => put_bytes("größer".as_bytes(), out),
        'C' => put_coded::<ComputePassDesc>(random, out),
        'R' => put_coded::<RenderPassDesc>(random, out),
        'B' => put_coded::<BufferLocation>(random, out),
        'T' => put_coded::<TextureLocation>(random, out),
        'E' => put_coded::<wgpu_types::Extent3d>(random, out),
        'G' => put_coded::<wgpu_types::ImageSubresourceRange>(random, out),
        'N' => put_coded::<Transitions>(random, out),
        other => panic!("no field '{other}'"),
    }
}

fn put_handle(random: &mut Random, out: &mut Vec<u8>) {
    out.extend_from_slice(&(random.below(3) as u32).to_le_bytes());
    out.extend_from_slice(&1u32.to_le_bytes());
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_coded<T: serde::Serialize + for<'a> serde::Deserialize<'a>>(random: &mut Random, out: &mut Vec<u8>) {
    let mut coded = Vec::new();
    pontoon_wire::encode(&some_value::<T>(random), &mut coded);
    put_bytes(&coded, out);
}
