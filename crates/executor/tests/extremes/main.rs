//! Numbers as large, as small and as reversed as they come: errors or the session's end, never a panic.

mod devices;
#[path = "../guest/mod.rs"]
mod guest;

use std::panic::{AssertUnwindSafe, catch_unwind};

use guest::*;
use pontoon_executor::{Arena, End, Limits, SharedBytes};
use pontoon_wire::command::*;
use pontoon_wire::frame::{self, Payload, WriteBuffer, code};
use pontoon_wire::ops::{Coded, Words};
use pontoon_wire::{Command, Id, List, Op};
use wgpu::wgt;
use wgt::BufferUsages as B;

const HUGE: [u64; 7] = [0, 1, 4, SIZE, u32::MAX as u64, u64::MAX - 3, u64::MAX];
const WIDE: [u32; 5] = [0, 1, 17, u32::MAX - 1, u32::MAX];

/// Tries every case; lists all that panic.
struct Trial {
    panics: Vec<String>,
    tried: usize,
}

impl Trial {
    fn new() -> Self {
        Self { panics: Vec::new(), tried: 0 }
    }

    fn case(&mut self, name: impl Into<String>, work: impl FnOnce(&mut Guest) -> Result<(), End>) {
        self.tried += 1;
        let tried = catch_unwind(AssertUnwindSafe(|| {
            let mut guest = Guest::furnished();
            let result = work(&mut guest);
            if result.is_ok() {
                let _ = guest.session.progress(std::time::Duration::ZERO);
            }
            result
        }));
        match tried {
            // No GPU has the noop back end's alignment; indirect draws insist on a real one.
            Ok(Err(End::Panic(message))) if message.contains("min_storage_buffer_offset_alignment") => {}
            Ok(Err(End::Panic(message))) => self.panics.push(format!("{}: {message}", name.into())),
            Ok(_) => {}
            Err(_) => self.panics.push(format!("{}: unwinds out of the session", name.into())),
        }
    }

    /// Records and submits.
    fn ops(&mut self, name: impl Into<String>, ops: &[Op<'_>]) {
        self.case(name, |guest| {
            guest.record(0, ops)?;
            guest.submit(1, &[0])
        });
    }

    fn command(&mut self, name: impl Into<String>, command: Command) {
        self.case(name, |guest| guest.command(command));
    }

    #[track_caller]
    fn verdict(self) {
        let (panics, tried) = (self.panics, self.tried);
        let first: Vec<_> = panics.iter().take(12).map(String::as_str).collect();
        assert!(panics.is_empty(), "{} of {tried} cases panic:\n{}", panics.len(), first.join("\n"));
    }
}

#[test]
fn buffers() {
    let mut trial = Trial::new();
    for size in HUGE {
        for (mapped, usage) in [(false, B::COPY_DST), (true, B::COPY_DST), (true, B::MAP_WRITE | B::COPY_SRC)]
        {
            trial.case(format!("buffer of {size}, mapped {mapped}"), |guest| {
                guest.command(create_buffer(2, size, usage, mapped))?;
                guest.command(Command::UnmapBuffer { buffer: Id::new(2, 1) })
            });
        }
        trial.command(format!("usage {size}"), create_buffer(2, 16, B::from_bits_retain(size as u32), false));
        for other in HUGE {
            trial.case(format!("write at {size} of {other}"), |guest| guest.write(size, other, 0, &[]));
            trial.command(
                format!("map {size}+{other}"),
                Command::MapBuffer { buffer: MAPPABLE, map: 1, write: false, offset: size, size: other },
            );
            let binding =
                BufferBinding { buffer: BUFFER, offset: size, size: std::num::NonZeroU64::new(other) };
            let entry = BindGroupEntry { binding: 0, resource: BindingResource::Buffer(binding) };
            trial.command(
                format!("bind {size}+{other}"),
                Command::CreateBindGroup {
                    device: DEVICE,
                    id: Id::new(1, 1),
                    label: None,
                    layout: Id::new(0, 1),
                    entries: List::cut([entry]),
                },
            );
        }
    }
    trial.verdict();
}

#[test]
fn copies_and_clears() {
    let mut trial = Trial::new();
    for offset in HUGE {
        for size in HUGE.map(Some).into_iter().chain([None]) {
            trial
                .ops(format!("clear {offset}+{size:?}"), &[Op::ClearBuffer { buffer: BUFFER, offset, size }]);
            for other in [0, u64::MAX - 3] {
                trial.ops(
                    format!("copy from {offset} to {other} of {size:?}"),
                    &[Op::CopyBufferToBuffer {
                        source: BUFFER,
                        source_offset: offset,
                        destination: MAPPABLE,
                        destination_offset: other,
                        size,
                    }],
                );
            }
        }
    }
    for x in WIDE {
        for width in WIDE {
            let location = |origin| TextureLocation { origin, ..place(TEXTURE) };
            let origin = wgt::Origin3d { x, y: x, z: x };
            let size = wgt::Extent3d { width, height: width, depth_or_array_layers: width };
            for row in [None, Some(256), Some(u32::MAX)] {
                let layout = wgt::TexelCopyBufferLayout {
                    offset: u64::from(x) << 32,
                    bytes_per_row: row,
                    rows_per_image: row,
                };
                let buffer = || Coded(Box::new(BufferLocation { buffer: BUFFER, layout }));
                let texture = || Coded(Box::new(location(origin)));
                let extent = || Coded(Box::new(size));
                let name = format!("{origin:?} {size:?} {layout:?}");
                trial.ops(
                    format!("to texture {name}"),
                    &[Op::CopyBufferToTexture { source: buffer(), destination: texture(), size: extent() }],
                );
                trial.ops(
                    format!("from texture {name}"),
                    &[Op::CopyTextureToBuffer { source: texture(), destination: buffer(), size: extent() }],
                );
                trial.case(format!("write texture {name}"), |guest| {
                    let destination = location(origin);
                    guest.command(Command::WriteTexture {
                        device: DEVICE,
                        destination,
                        layout,
                        size,
                        staged: 0,
                    })
                });
            }
            trial.ops(
                format!("texture to texture {origin:?} {size:?}"),
                &[Op::CopyTextureToTexture {
                    source: Coded(Box::new(location(wgt::Origin3d::ZERO))),
                    destination: Coded(Box::new(location(origin))),
                    size: Coded(Box::new(size)),
                }],
            );
        }
        for count in [None, Some(0), Some(1), Some(u32::MAX)] {
            let range = wgt::ImageSubresourceRange {
                aspect: wgt::TextureAspect::All,
                base_mip_level: x,
                mip_level_count: count,
                base_array_layer: x,
                array_layer_count: count,
            };
            let name = format!("{range:?}");
            let desc = wgt::TextureViewDescriptor {
                base_mip_level: x,
                mip_level_count: count,
                base_array_layer: x,
                array_layer_count: count,
                ..Default::default()
            };
            let id = Id::new(1, 1);
            trial.command(format!("view {name}"), Command::CreateTextureView { texture: TEXTURE, id, desc });
        }
        trial.ops(
            format!("resolve {x}"),
            &[Op::ResolveQuerySet {
                query_set: QUERIES,
                first: x,
                count: x,
                destination: BUFFER,
                destination_offset: u64::MAX - 255,
            }],
        );
        trial.ops(format!("timestamp {x}"), &[Op::WriteTimestamp { query_set: QUERIES, index: x }]);
    }
    trial.verdict();
}

/// `wgpu-core` 30.0.1 checks only the ends of these ranges, and takes one that begins behind its end (no
/// count, or one that overflows) to a `get_unchecked_mut`.
#[test]
fn clears_of_parts_that_a_texture_does_not_have() {
    let mut trial = Trial::new();
    for base in WIDE {
        for count in [None, Some(0), Some(1), Some(u32::MAX)] {
            for (mips, layers) in [(base, 0), (0, base), (base, base)] {
                let range = wgt::ImageSubresourceRange {
                    aspect: wgt::TextureAspect::All,
                    base_mip_level: mips,
                    mip_level_count: count,
                    base_array_layer: layers,
                    array_layer_count: count,
                };
                let name = format!("clear {range:?}");
                trial.ops(name, &[Op::ClearTexture { texture: TEXTURE, range: Coded(Box::new(range)) }]);
            }
        }
    }
    trial.verdict();
}

#[test]
fn textures_and_queries() {
    let mut trial = Trial::new();
    for width in WIDE {
        for levels in WIDE {
            let size = wgt::Extent3d { width, height: width, depth_or_array_layers: width };
            trial.command(
                format!("{size:?} {levels}"),
                create_texture(1, size, levels, wgt::TextureUsages::COPY_DST),
            );
            let Command::CreateTexture { device, id, desc } =
                create_texture(1, size, levels, wgt::TextureUsages::all())
            else {
                unreachable!()
            };
            for dimension in [wgt::TextureDimension::D1, wgt::TextureDimension::D2, wgt::TextureDimension::D3]
            {
                for format in [
                    wgt::TextureFormat::NV12,
                    wgt::TextureFormat::Depth24PlusStencil8,
                    wgt::TextureFormat::Bc1RgbaUnorm,
                ] {
                    let desc =
                        wgt::TextureDescriptor { dimension, format, sample_count: levels, ..desc.clone() };
                    trial.command(format!("{desc:?}"), Command::CreateTexture { device, id, desc });
                }
            }
        }
        for ty in [
            wgt::QueryType::Occlusion,
            wgt::QueryType::Timestamp,
            wgt::QueryType::PipelineStatistics(wgt::PipelineStatisticsTypes::from_bits_retain(width as u8)),
        ] {
            let desc = wgt::QuerySetDescriptor { label: None, ty, count: width };
            trial.command(
                format!("{desc:?}"),
                Command::CreateQuerySet { device: DEVICE, id: Id::new(1, 1), desc },
            );
        }
        let clamp = f32::from_bits(width);
        let sampler = wgt::SamplerDescriptor {
            lod_min_clamp: clamp,
            lod_max_clamp: clamp,
            anisotropy_clamp: width as u16,
            ..Default::default()
        };
        trial.command(
            format!("{sampler:?}"),
            Command::CreateSampler { device: DEVICE, id: Id::new(1, 1), desc: sampler },
        );
    }
    trial.verdict();
}

fn drawing<'a>(op: &Op<'a>) -> Vec<Op<'a>> {
    vec![
        begin_render(),
        Op::SetRenderPipeline { pipeline: RENDER },
        Op::SetVertexBuffer { slot: 0, buffer: Some(BUFFER), offset: 0, size: None },
        Op::SetIndexBuffer { buffer: BUFFER, format: wgt::IndexFormat::Uint32, offset: 0, size: None },
        op.clone(),
        Op::EndPass {},
    ]
}

#[test]
fn draws_and_dispatches() {
    let mut trial = Trial::new();
    for a in WIDE {
        for b in WIDE {
            let draws = [
                Op::Draw { first_vertex: a, end_vertex: b, first_instance: 0, end_instance: 1 },
                Op::Draw { first_vertex: 0, end_vertex: 1, first_instance: a, end_instance: b },
                Op::DrawIndexed {
                    first_index: a,
                    end_index: b,
                    base_vertex: i32::MIN,
                    first_instance: b,
                    end_instance: a,
                },
                Op::SetScissorRect { x: a, y: b, width: a, height: b },
                Op::SetViewport {
                    x: f32::from_bits(a),
                    y: f32::NAN,
                    width: b as f32,
                    height: -1.0,
                    min_depth: f32::INFINITY,
                    max_depth: 0.0,
                },
                Op::SetStencilReference { reference: a },
                Op::BeginOcclusionQuery { index: a },
                Op::WriteTimestamp { query_set: QUERIES, index: a },
                Op::BeginPipelineStatisticsQuery { query_set: QUERIES, index: a },
            ];
            for draw in &draws {
                trial.ops(format!("{draw:?}"), &drawing(draw));
                if matches!(draw, Op::Draw { .. } | Op::DrawIndexed { .. }) {
                    let desc = Box::new(bundle(&drawing(draw)[1..5]));
                    trial.command(
                        format!("bundle {draw:?}"),
                        Command::CreateRenderBundle { device: DEVICE, id: Id::new(1, 1), desc },
                    );
                }
            }
            trial.ops(
                format!("dispatch {a} {b}"),
                &[
                    begin_compute(),
                    Op::SetComputePipeline { pipeline: COMPUTE },
                    Op::Dispatch { x: a, y: b, z: a },
                    Op::EndPass {},
                ],
            );
        }
        for offset in HUGE {
            let indirect = [
                Op::DrawIndirect { buffer: BUFFER, offset },
                Op::DrawIndexedIndirect { buffer: BUFFER, offset },
                Op::MultiDrawIndirect { buffer: BUFFER, offset, count: a },
                Op::MultiDrawIndexedIndirect { buffer: BUFFER, offset, count: a },
                Op::MultiDrawIndirectCount {
                    buffer: BUFFER,
                    offset,
                    count_buffer: BUFFER,
                    count_offset: offset,
                    max_count: a,
                },
                Op::SetVertexBuffer { slot: a, buffer: Some(BUFFER), offset, size: Some(u64::from(a)) },
                Op::SetVertexBuffer { slot: a, buffer: None, offset, size: None },
                Op::SetIndexBuffer {
                    buffer: BUFFER,
                    format: wgt::IndexFormat::Uint16,
                    offset,
                    size: Some(offset),
                },
            ];
            for op in &indirect {
                trial.ops(format!("{op:?}"), &drawing(op));
            }
            trial.ops(
                format!("dispatch indirect {offset}"),
                &[
                    begin_compute(),
                    Op::SetComputePipeline { pipeline: COMPUTE },
                    Op::DispatchIndirect { buffer: BUFFER, offset },
                    Op::EndPass {},
                ],
            );
        }
        for data in [&[][..], &[1; 3], &[1; 4], &[1; 400]] {
            let op = Op::SetImmediates { offset: a, data };
            trial.ops(format!("immediates {a} {}", data.len()), &drawing(&op));
            trial.ops(
                format!("immediates {a} {}", data.len()),
                &[begin_compute(), Op::SetComputePipeline { pipeline: COMPUTE }, op],
            );
            let desc = Box::new(bundle(&[
                Op::SetRenderPipeline { pipeline: RENDER },
                Op::SetImmediates { offset: a, data },
            ]));
            trial.command(
                format!("bundle immediates {a} {}", data.len()),
                Command::CreateRenderBundle { device: DEVICE, id: Id::new(1, 1), desc },
            );
        }
        for len in [0, 1, 256] {
            let words = vec![a; len];
            let op = Op::SetBindGroup { index: a, group: Some(GROUP), offsets: Words::Native(&words) };
            trial.ops(
                format!("group {a} with {len} offsets"),
                &[begin_compute(), Op::SetComputePipeline { pipeline: COMPUTE }, op.clone()],
            );
            let desc = Box::new(bundle(&[op]));
            trial.command(
                format!("bundle group {a} with {len}"),
                Command::CreateRenderBundle { device: DEVICE, id: Id::new(1, 1), desc },
            );
        }
    }
    trial.verdict();
}

#[test]
fn transitions_are_hints_that_can_be_wrong() {
    let mut trial = Trial::new();
    for bits in [0u16, 1, 3, 0x3ff, 0x8000, u16::MAX] {
        let transitions = Transitions {
            buffers: List::cut([(BUFFER, wgt::BufferUses::from_bits_retain(bits))]),
            textures: List::default(),
            views: List::default(),
        };
        trial.ops(
            format!("buffer uses {bits:#x}"),
            &[Op::TransitionResources { transitions: Coded(Box::new(transitions)) }],
        );
        for (start, end) in [(0, 1), (0, 0), (0, 2), (5, 9), (0, u32::MAX), (1, 0)] {
            let range = start..end;
            for bits in [u32::from(bits), 1 << 31] {
                let selector = wgt::TextureSelector { mips: range.clone(), layers: range.clone() };
                let transitions = Transitions {
                    buffers: List::default(),
                    textures: List::cut([(
                        TEXTURE,
                        Some(selector),
                        wgt::TextureUses::from_bits_retain(bits as _),
                    )]),
                    views: List::default(),
                };
                trial.ops(
                    format!("texture {range:?} uses {bits:#x}"),
                    &[Op::TransitionResources { transitions: Coded(Box::new(transitions)) }],
                );
            }
        }
    }
    trial.case("destroyed texture", |guest| {
        guest.command(Command::DestroyTexture { texture: TEXTURE })?;
        guest.command(Command::DestroyBuffer { buffer: BUFFER })?;
        let transitions = Transitions {
            buffers: List::cut([(BUFFER, wgt::BufferUses::COPY_DST)]),
            textures: List::cut([(TEXTURE, None, wgt::TextureUses::COPY_DST)]),
            views: List::default(),
        };
        guest.record(0, &[Op::TransitionResources { transitions: Coded(Box::new(transitions)) }])?;
        guest.submit(1, &[0])
    });
    trial.verdict();
}

type Adjust = (&'static str, fn(&mut wgt::Limits));
