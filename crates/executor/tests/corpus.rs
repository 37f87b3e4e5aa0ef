//! The fuzzer's corpus, without the fuzzer.

mod guest;
#[path = "../../../fuzz/src/harness.rs"]
mod harness;
#[path = "../../wire/tests/made_up/mod.rs"]
mod made_up;
#[path = "../../wire/tests/made_up/operations.rs"]
mod operations;

use std::path::{Path, PathBuf};

use guest::*;
use made_up::{Random, some_value};
use pontoon_wire::frame::{self, Payload, WriteBuffer, code};
use pontoon_wire::hello::Hello;
use pontoon_wire::{Command, Event, Id, Op};

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn replay(target: &str, feed: fn(&[u8])) {
    let files: Vec<_> =
        std::fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 10, "{} files in the corpus of {target}", files.len());
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let fed = std::panic::catch_unwind(|| feed(&bytes));
        assert!(fed.is_ok(), "{} makes {target} panic", file.display());
    }
}

#[test]
fn decode() {
    write_seeds();
    replay("decode", harness::decode);
}

#[test]
fn session() {
    write_seeds();
    replay("session", harness::session);
}

/// Writes the seeds, where somebody asks for it.
fn write_seeds() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    if std::env::var_os("PONTOON_WRITE_CORPUS").is_none() {
        return;
    }
    ONCE.call_once(|| {
        let put = |target: &str, name: &str, bytes: &[u8]| {
            std::fs::create_dir_all(folder(target)).unwrap();
            std::fs::write(folder(target).join(name), bytes).unwrap();
        };
        let random = &mut Random::new(30);
        for number in 0..12 {
            let mut bytes = Vec::new();
            for _ in 0..6 {
                frame::put_encoded(&mut bytes, code::COMMAND, &some_value::<Command>(random));
                frame::put_encoded(&mut bytes, code::EVENT, &some_value::<Event>(random));
            }
            frame::put_encoded(&mut bytes, code::HELLO, &some_value::<Hello>(random));
            put("decode", &format!("commands-{number:02}"), &bytes);
        }
        for chunk in operations::LAYOUTS.chunks(10) {
            let mut ops = Vec::new();
            chunk.iter().for_each(|layout| operations::put(random, *layout, &mut ops));
            let mut bytes = Vec::new();
            frame::Encode { encoder: Id::new(0, 1), ops: &ops }.put(&mut bytes);
            put("decode", &format!("operations-from-{:02}", chunk[0].0), &bytes);
        }
        put("decode", "bodies", &bodies());
        for (name, ops) in recordings() {
            put("session", name, &program(&ops));
        }
        put("session", "writes", &[furnished(), bodies()].concat());
        for number in 0..8 {
            let mut bytes = furnished();
            (0..6)
                .for_each(|_| frame::put_encoded(&mut bytes, code::COMMAND, &some_value::<Command>(random)));
            put("session", &format!("commands-{number:02}"), &bytes);
        }
    });
}

fn furnished() -> Vec<u8> {
    let mut bytes = Vec::new();
    furnish(&mut |fill| fill(&mut bytes));
    bytes
}

/// One frame of each kind with a fixed layout.
fn bodies() -> Vec<u8> {
    let mut bytes = Vec::new();
    let payload = Payload::Inline(&[5; 16]);
    let write = WriteBuffer { buffer: BUFFER, offset: 0, total: 32, at: 0, payload };
    write.put(&mut bytes, code::WRITE_BUFFER);
    WriteBuffer { at: 16, ..write }.put(&mut bytes, code::WRITE_BUFFER);
    frame::put(&mut bytes, code::STAGE, |out| Payload::Inline(&[1; 1024]).put(out));
    WriteBuffer { payload: Payload::Named { digest: [7; 32], len: 16 }, ..write }
        .put(&mut bytes, code::WRITE_BUFFER);
    let layout =
        wgpu::wgt::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(64), rows_per_image: None };
    let size = wgpu::wgt::Extent3d { width: 16, height: 16, depth_or_array_layers: 1 };
    let texture =
        Command::WriteTexture { device: DEVICE, destination: place(TEXTURE), layout, size, staged: 1024 };
    let map = Command::MapBuffer { buffer: MAPPABLE, map: 1, write: false, offset: 0, size: SIZE };
    let commands = [
        texture,
        map,
        Command::UnmapBuffer { buffer: MAPPABLE },
        create_buffer(2, 64, wgpu::BufferUsages::COPY_DST, true),
    ];
    commands.iter().for_each(|command| frame::put_encoded(&mut bytes, code::COMMAND, command));
    WriteBuffer { buffer: Id::new(2, 1), ..write }.put(&mut bytes, code::WRITE_MAPPED);
    frame::Submit::put(&mut bytes, DEVICE, 1, &[]);
    frame::Forget { kind: 1, id: BUFFER.to_bits() }.put(&mut bytes);
    frame::MappedBytes { map: 1, at: 0, bytes: &[7; 9] }.put(&mut bytes);
    bytes
}

fn program(ops: &[Op<'_>]) -> Vec<u8> {
    let (mut bytes, mut recorded) = (furnished(), Vec::new());
    ops.iter().for_each(|op| op.put(&mut recorded));
    let begin = Command::CreateCommandEncoder { device: DEVICE, id: Id::new(0, 1), label: None };
    frame::put_encoded(&mut bytes, code::COMMAND, &begin);
    frame::Encode { encoder: Id::new(0, 1), ops: &recorded }.put(&mut bytes);
    let finish = Command::FinishEncoder { encoder: Id::new(0, 1), id: Id::new(0, 1) };
    frame::put_encoded(&mut bytes, code::COMMAND, &finish);
    frame::Submit::put(&mut bytes, DEVICE, 1, &[Id::new(0, 1)]);
    frame::put_encoded(&mut bytes, code::COMMAND, &Command::NotifyDone { device: DEVICE, index: 1, call: 1 });
    bytes
}

fn recordings() -> Vec<(&'static str, Vec<Op<'static>>)> {
    const BUNDLES: &[Id<pontoon_wire::handle::RenderBundle>] = &[Id::new(0, 1)];
    let group =
        Op::SetBindGroup { index: 0, group: Some(GROUP), offsets: pontoon_wire::ops::Words::Native(&[]) };
    let vertices = Op::SetVertexBuffer { slot: 0, buffer: Some(BUFFER), offset: 0, size: None };
    let indices =
        Op::SetIndexBuffer { buffer: BUFFER, format: wgpu::IndexFormat::Uint32, offset: 0, size: None };
    vec![
        (
            "compute",
            vec![
                begin_compute(),
                Op::SetComputePipeline { pipeline: COMPUTE },
                group,
                Op::SetImmediates { offset: 0, data: &[0; 16] },
                Op::Dispatch { x: 1, y: 1, z: 1 },
                Op::EndPass {},
            ],
        ),
        (
            "draw",
            vec![
                begin_render(),
                Op::SetRenderPipeline { pipeline: RENDER },
                vertices,
                indices,
                Op::Draw { first_vertex: 0, end_vertex: 3, first_instance: 0, end_instance: 1 },
                Op::DrawIndexed {
                    first_index: 0,
                    end_index: 3,
                    base_vertex: 0,
                    first_instance: 0,
                    end_instance: 1,
                },
                Op::EndPass {},
            ],
        ),
        (
            "state",
            vec![
                begin_render(),
                Op::SetViewport { x: 0.0, y: 0.0, width: 16.0, height: 16.0, min_depth: 0.0, max_depth: 1.0 },
                Op::SetScissorRect { x: 0, y: 0, width: 8, height: 8 },
                Op::SetStencilReference { reference: 1 },
                Op::SetBlendConstant { r: 0.0, g: 0.0, b: 0.0, a: 1.0 },
                Op::EndPass {},
            ],
        ),
        (
            "bundle",
            vec![
                begin_render(),
                Op::ExecuteBundles { bundles: pontoon_wire::ops::Ids::Native(BUNDLES) },
                Op::EndPass {},
            ],
        ),
        (
            "copies",
            vec![
                Op::CopyBufferToBuffer {
                    source: BUFFER,
                    source_offset: 0,
                    destination: MAPPABLE,
                    destination_offset: 0,
                    size: Some(64),
                },
                Op::ClearBuffer { buffer: BUFFER, offset: 0, size: None },
                Op::PushDebugGroup { label: "a" },
                Op::PopDebugGroup {},
            ],
        ),
        (
            "queries",
            vec![
                Op::WriteTimestamp { query_set: QUERIES, index: 0 },
                Op::ResolveQuerySet {
                    query_set: QUERIES,
                    first: 0,
                    count: 1,
                    destination: BUFFER,
                    destination_offset: 0,
                },
            ],
        ),
    ]
}
