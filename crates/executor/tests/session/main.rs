//! What a session does with frames that no well-behaved guest sends, and with those that one does.

mod data;
#[path = "../guest/mod.rs"]
mod guest;

use guest::*;
use pontoon_executor::{End, Limits};
use pontoon_wire::command::*;
use pontoon_wire::event::{ErrorKind, Event, MappedAt};
use pontoon_wire::frame::{self, Payload, WriteBuffer, code};
use pontoon_wire::{Command, Id, List, Op, handle};
use wgpu::wgt;
use wgt::BufferUsages as B;

#[test]
fn a_furnished_session_works_and_counts() {
    let mut guest = Guest::furnished();
    let usage = guest.session.usage();
    assert_eq!((usage.objects, usage.errors), (14, 0));
    assert_eq!(usage.memory_bytes, 2 * SIZE + 16 * 16 * 4);
    let ops = [
        begin_compute(),
        Op::SetComputePipeline { pipeline: COMPUTE },
        Op::SetBindGroup { index: 0, group: Some(GROUP), offsets: pontoon_wire::ops::Words::Native(&[]) },
        Op::SetImmediates { offset: 0, data: &[1; 16] },
        Op::Dispatch { x: 2, y: 1, z: 1 },
        Op::EndPass {},
        begin_render(),
        Op::SetRenderPipeline { pipeline: RENDER },
        Op::SetVertexBuffer { slot: 0, buffer: Some(BUFFER), offset: 0, size: Some(48) },
        Op::Draw { first_vertex: 0, end_vertex: 3, first_instance: 0, end_instance: 1 },
        Op::EndPass {},
        Op::CopyBufferToBuffer {
            source: BUFFER,
            source_offset: 0,
            destination: MAPPABLE,
            destination_offset: 0,
            size: None,
        },
    ];
    guest.record(0, &ops).unwrap();
    guest.submit(1, &[0]).unwrap();
    guest.command(Command::NotifyDone { device: DEVICE, index: 1, call: 9 }).unwrap();
    assert_eq!(guest.errors(), []);
    guest.session.progress(std::time::Duration::from_secs(5)).unwrap();
    assert_eq!(guest.events(), [Event::Done { device: DEVICE, index: 1, call: 9 }]);
    assert_eq!(guest.session.usage().submissions, 1);
}

#[test]
fn forged_stale_and_foreign_names_are_refused_by_name() {
    let mut names = 0;
    for code in 0..=u8::MAX {
        let Some(name) = handle::kind_name(code) else {
            let message = violation(Guest::with_device().forget(code, 0));
            assert_eq!(message, format!("unknown kind of object {code}"));
            continue;
        };
        names += 1;
        for id in [Id::<handle::Buffer>::new(7, 1), Id::new(0, 2), Id::new(0, 0), Id::new(u32::MAX, u32::MAX)]
        {
            let message = violation(Guest::furnished().forget(code, id.to_bits()));
            assert_eq!(message, format!("{name} {id:?} does not exist"));
        }
    }
    assert_eq!(names, 16);
    // A name that was used and given back is stale for ever.
    let mut guest = Guest::furnished();
    guest.forget(1, BUFFER.to_bits()).unwrap();
    assert_eq!(violation(guest.write(0, 4, 0, &[0; 4])), "buffer 0.1 does not exist");
    // The same numbers of another kind are another name: there is no bundle 1.1, though there is a buffer.
    let mut guest = Guest::furnished();
    let bundles = [Id::new(1, 1)];
    let ops = [begin_render(), Op::ExecuteBundles { bundles: pontoon_wire::ops::Ids::Native(&bundles) }];
    assert_eq!(violation(guest.record(0, &ops)), "render bundle 1.1 does not exist");
}

#[test]
fn every_command_names_the_object_it_lacks() {
    let missing = || Id::new(9, 1);
    let stage = || Stage {
        module: Id::new(9, 1),
        entry_point: None,
        constants: List::default(),
        zero_initialize_workgroup_memory: false,
    };
    let next = Id::new(1, 1);
    let resource = |resource| Command::CreateBindGroup {
        device: DEVICE,
        id: Id::new(1, 1),
        label: None,
        layout: Id::new(0, 1),
        entries: List::cut([BindGroupEntry { binding: 0, resource }]),
    };
    let binding = BufferBinding { buffer: Id::new(9, 1), offset: 0, size: None };
    let commands: Vec<(Command, &str)> = vec![
        (Command::CompilationInfo { call: 1, module: Id::new(9, 1) }, "shader module"),
        (Command::NotifyDone { device: Id::new(9, 1), index: 0, call: 1 }, "device"),
        (create_on(Id::new(9, 1)), "device"),
        (resource(BindingResource::Buffer(binding)), "buffer"),
        (resource(BindingResource::Sampler(Id::new(9, 1))), "sampler"),
        (resource(BindingResource::TextureView(Id::new(9, 1))), "texture view"),
        (resource(BindingResource::ExternalTexture(Id::new(9, 1))), "external texture"),
        (
            Command::CreateComputePipeline {
                device: DEVICE,
                id: next,
                desc: Box::new(ComputePipelineDesc { label: None, layout: None, stage: stage() }),
            },
            "shader module",
        ),
        (
            Command::ComputeBindGroupLayout { pipeline: Id::new(9, 1), index: 0, id: Id::new(1, 1) },
            "compute pipeline",
        ),
        (
            Command::RenderBindGroupLayout { pipeline: Id::new(9, 1), index: 0, id: Id::new(1, 1) },
            "render pipeline",
        ),
        (
            Command::CreateTextureView {
                texture: Id::new(9, 1),
                id: Id::new(1, 1),
                desc: Default::default(),
            },
            "texture",
        ),
        (Command::FinishEncoder { encoder: Id::new(9, 1), id: Id::new(0, 1) }, "command encoder"),
        (Command::MapBuffer { buffer: missing(), map: 1, write: false, offset: 0, size: 4 }, "buffer"),
        (Command::UnmapBuffer { buffer: missing() }, "buffer"),
        (Command::DestroyBuffer { buffer: missing() }, "buffer"),
        (Command::DestroyTexture { texture: Id::new(9, 1) }, "texture"),
        (Command::DestroyQuerySet { query_set: Id::new(9, 1) }, "query set"),
        (Command::DestroyExternalTexture { texture: Id::new(9, 1) }, "external texture"),
        (Command::DestroyDevice { device: Id::new(9, 1) }, "device"),
    ];
    for (command, name) in commands {
        let text = format!("{command:?}");
        assert_eq!(
            violation(Guest::furnished().command(command)),
            format!("{name} 9.1 does not exist"),
            "{text}"
        );
    }
    assert!(
        violation(Guest::furnished().command(Command::FormatFeatures {
            call: 1,
            adapter: u32::MAX,
            format: wgt::TextureFormat::R8Unorm
        }))
        .contains("adapter 4294967295")
    );
    let mut guest = Guest::furnished();
    assert_eq!(violation(guest.submit(1, &[5])), "command buffer 5.1 does not exist");
    assert_eq!(violation(Guest::furnished().encode(3, &[])), "command encoder 3.1 does not exist");
}

fn create_on(device: Id<handle::Device>) -> Command {
    Command::CreateCommandEncoder { device, id: Id::new(0, 1), label: None }
}

#[test]
fn names_are_dense_and_free() {
    for (index, generation, what) in [
        (0, 1, "is taken or stale"),
        (0, 2, "is taken or stale"),
        (3, 1, "is not the next name"),
        (2, 2, "is not the next name"),
        (u32::MAX, 1, "is not the next name"),
    ] {
        let id = Id::new(index, generation);
        let desc =
            wgt::BufferDescriptor { label: None, size: 4, usage: B::COPY_DST, mapped_at_creation: false };
        let message =
            violation(Guest::furnished().command(Command::CreateBuffer { device: DEVICE, id, desc }));
        assert_eq!(message, format!("buffer {index}.{generation} {what}"));
    }
}

#[test]
fn rejected_commands_are_reported_once_with_their_number() {
    let mut guest = Guest::with_device();
    guest.command(create_buffer(0, 4, B::MAP_READ | B::STORAGE, false)).unwrap();
    let message = guest.expect_error(ErrorKind::Validation);
    assert!(message.contains("MAP_READ"), "{message}");
    guest.command(Command::Barrier { call: 4 }).unwrap();
    assert_eq!(guest.events().len(), 1, "the error comes once");
    // Using what could not be created is an error again, of the command that uses it.
    guest.write(0, 4, 0, &[0; 4]).unwrap();
    guest.expect_error(ErrorKind::Validation);
    assert_eq!(guest.session.usage().errors, 2);
}

#[test]
fn recording_errors_come_once_when_the_recording_ends() {
    let bad: [&[Op<'_>]; 4] = [
        &[Op::PopDebugGroup {}],
        &[begin_compute(), Op::Dispatch { x: 1, y: 1, z: 1 }, Op::EndPass {}],
        &[
            begin_compute(),
            Op::Dispatch { x: 1, y: 1, z: 1 },
            Op::Dispatch { x: 1, y: 1, z: 1 },
            Op::EndPass {},
        ],
        &[
            begin_render(),
            Op::Draw { first_vertex: 0, end_vertex: 1, first_instance: 0, end_instance: 1 },
            Op::EndPass {},
        ],
    ];
    for (number, ops) in bad.into_iter().enumerate() {
        let mut guest = Guest::furnished();
        guest.record(0, ops).unwrap();
        let errors = guest.errors();
        assert_eq!(errors.len(), 1, "recording {number}: {errors:?}");
        assert_eq!(errors[0].0, guest.sequence, "recording {number}: {errors:?}");
        // Locally, to submit an invalid command buffer is an error too, of the submission.
        guest.submit(1, &[0]).unwrap();
        let errors = guest.errors();
        assert_eq!(errors.len(), 1, "submission {number}: {errors:?}");
    }
}

/// Locally too there are several errors then: of the encoder, and of each pass as it ends.
#[test]
fn a_pass_that_was_not_ended_spoils_its_recording() {
    let clear = Op::ClearBuffer { buffer: BUFFER, offset: 0, size: None };
    for ops in [
        &[begin_compute()][..],
        &[begin_render(), Op::PushDebugGroup { label: "open" }],
        &[begin_compute(), begin_compute(), Op::EndPass {}, Op::EndPass {}],
        &[begin_compute(), begin_render(), Op::Dispatch { x: 1, y: 1, z: 1 }],
        &[begin_compute(), clear, Op::EndPass {}],
    ] {
        let mut guest = Guest::furnished();
        guest.record(0, ops).unwrap();
        let errors = guest.errors();
        assert!((1..=3).contains(&errors.len()), "{errors:?}");
        let own = |(sequence, ..): &(u64, ErrorKind, String)| {
            (guest.sequence - 1..=guest.sequence).contains(sequence)
        };
        assert!(errors.iter().all(own), "{errors:?}");
    }
}

#[test]
fn operations_out_of_place_end_the_session() {
    for (ops, what) in [
        (vec![Op::Dispatch { x: 1, y: 1, z: 1 }], "Dispatch outside a pass"),
        (vec![begin_render(), Op::Dispatch { x: 1, y: 1, z: 1 }], "Dispatch in a render pass"),
        (
            vec![begin_compute(), Op::SetStencilReference { reference: 1 }],
            "SetStencilReference in a compute pass",
        ),
    ] {
        assert_eq!(violation(Guest::furnished().record(0, &ops)), what);
    }
    let desc = bundle(&[Op::Dispatch { x: 1, y: 1, z: 1 }]);
    let command = Command::CreateRenderBundle { device: DEVICE, id: Id::new(1, 1), desc: Box::new(desc) };
    assert_eq!(violation(Guest::furnished().command(command)), "Dispatch in a render bundle");
    // To end a pass that is not open is harmless.
    Guest::furnished().record(0, &[Op::EndPass {}, Op::EndPass {}]).unwrap();
}

#[test]
fn the_memory_limit_is_an_error_and_its_object_is_invalid() {
    let mut guest = Guest::new(Limits { memory_bytes: 1000, ..Limits::default() });
    guest.device(DEVICE);
    guest.command(create_buffer(0, 600, B::COPY_DST, false)).unwrap();
    guest.command(create_buffer(1, 600, B::COPY_DST | B::COPY_SRC, false)).unwrap();
    let message = guest.expect_error(ErrorKind::OutOfMemory);
    assert!(
        message.contains("needs 600 bytes")
            && message.contains("600 of the 1000")
            && message.contains("limits.memory_bytes"),
        "{message}"
    );
    assert_eq!(guest.session.usage().memory_bytes, 600);
    let copy = Op::CopyBufferToBuffer {
        source: Id::new(1, 1),
        source_offset: 0,
        destination: Id::new(0, 1),
        destination_offset: 0,
        size: Some(4),
    };
    guest.record(0, &[copy]).unwrap();
    guest.expect_error(ErrorKind::Validation);
    let extent = wgt::Extent3d { width: 16, height: 16, depth_or_array_layers: 1 };
    guest.command(create_texture(0, extent, 1, wgt::TextureUsages::COPY_DST)).unwrap();
    guest.expect_error(ErrorKind::OutOfMemory);
    guest
        .command(Command::CreateTextureView { texture: TEXTURE, id: TARGET, desc: Default::default() })
        .unwrap();
    guest.expect_error(ErrorKind::Validation);
    // What is destroyed or dropped is free again, and only once.
    guest.command(Command::DestroyBuffer { buffer: Id::new(0, 1) }).unwrap();
    guest.command(Command::DestroyBuffer { buffer: Id::new(0, 1) }).unwrap();
    assert_eq!(guest.session.usage().memory_bytes, 0);
    guest.forget(1, Id::<handle::Buffer>::new(0, 1).to_bits()).unwrap();
    guest.forget(1, Id::<handle::Buffer>::new(1, 1).to_bits()).unwrap();
    guest.forget(2, TEXTURE.to_bits()).unwrap();
    assert_eq!(guest.session.usage().memory_bytes, 0);
    guest.command(create_buffer(2, 1000, B::COPY_DST, false)).unwrap();
    assert_eq!(guest.errors(), []);
    assert_eq!(guest.session.usage().memory_bytes, 1000);
}

/// `wgpu` refuses these for its own reasons; they may not stay on the account.
#[test]
fn creations_that_fail_cost_no_memory() {
    let mut guest = Guest::with_device();
    guest.command(create_buffer(0, 1000, B::MAP_READ | B::STORAGE, false)).unwrap();
    guest.expect_error(ErrorKind::Validation);
    guest
        .command(create_texture(
            0,
            wgt::Extent3d { width: 4, height: 4, depth_or_array_layers: 1 },
            9,
            wgt::TextureUsages::COPY_DST,
        ))
        .unwrap();
    guest.expect_error(ErrorKind::Validation);
    guest.forget(1, BUFFER.to_bits()).unwrap();
    guest.forget(2, TEXTURE.to_bits()).unwrap();
    assert_eq!(guest.session.usage().memory_bytes, 0);
}

#[test]
fn the_object_limit_ends_the_session() {
    let mut guest = Guest::new(Limits { objects: 3, ..Limits::default() });
    guest.device(DEVICE);
    guest.command(create_buffer(0, 4, B::COPY_DST, false)).unwrap();
    guest.command(create_buffer(1, 4, B::COPY_DST, false)).unwrap();
    guest.forget(1, BUFFER.to_bits()).unwrap();
    guest.command(create_on(DEVICE)).unwrap();
    match guest.command(create_buffer(2, 4, B::COPY_DST, false)) {
        Err(End::Limit(message)) => {
            assert!(message.contains("3 objects") && message.contains("limits.objects"), "{message}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn object_accounts_return_to_where_they_were() {
    let mut guest = Guest::furnished();
    let before = guest.session.usage().objects;
    for round in 1..=20u64 {
        let generation = round as u32;
        let id = Id::new(0, generation);
        guest.command(Command::CreateCommandEncoder { device: DEVICE, id, label: None }).unwrap();
        guest.command(Command::FinishEncoder { encoder: id, id: Id::new(0, generation) }).unwrap();
        let buffers = [Id::new(0, generation)];
        guest.frame(&|out| frame::Submit::put(out, DEVICE, round, &buffers)).unwrap();
    }
    assert_eq!(guest.session.usage().objects, before);
    assert_eq!(guest.errors(), []);
}

#[test]
fn submissions_are_numbered_without_gaps() {
    assert_eq!(violation(Guest::furnished().submit(2, &[])), "submission 2 after 0");
    assert_eq!(violation(Guest::furnished().submit(0, &[])), "submission 0 after 0");
    assert_eq!(
        violation(Guest::furnished().submit(u64::MAX, &[])),
        format!("submission {} after 0", u64::MAX)
    );
    let mut guest = Guest::furnished();
    guest.submit(1, &[]).unwrap();
    assert_eq!(violation(guest.submit(1, &[])), "submission 1 after 1");
    let mut guest = Guest::furnished();
    let question = Command::NotifyDone { device: DEVICE, index: 1, call: 1 };
    assert_eq!(violation(guest.command(question)), "question after submission 1 of 0");
    let mut guest = Guest::furnished();
    guest.record(0, &[]).unwrap();
    assert_eq!(
        violation(guest.submit(1, &[0, 0])),
        "command buffer 0.1 does not exist",
        "the same one twice"
    );
}

#[test]
fn unknown_and_host_side_frames_end_the_session() {
    for code in [0u8, 9, 77, 128, 129, 130, 131, 132, 255] {
        let message = violation(Guest::with_device().frame(&|out| frame::put(out, code, |_| {})));
        assert_eq!(message, format!("unknown frame code {code}"));
    }
    for code in 1..=8u8 {
        let noise = [0xee; 5];
        let result =
            Guest::with_device().frame(&|out| frame::put(out, code, |out| out.extend_from_slice(&noise)));
        assert!(matches!(result, Err(End::Violation(_))), "code {code}: {result:?}");
    }
}

#[test]
fn payload_in_an_arena_that_the_session_lacks_ends_it() {
    let payload = Payload::Arena { at: 0, len: 8 };
    let write = WriteBuffer { buffer: BUFFER, offset: 0, total: 8, at: 0, payload };
    for code in [code::WRITE_BUFFER, code::WRITE_MAPPED] {
        let message = violation(Guest::furnished().frame(&|out| write.put(out, code)));
        assert_eq!(message, "this session has no shared arena");
    }
    let message =
        violation(Guest::furnished().frame(&|out| frame::put(out, code::STAGE, |out| payload.put(out))));
    assert_eq!(message, "this session has no shared arena");
}

/// What the protocol promises of a destroyed device: it is lost, once, and its objects do nothing.
#[test]
fn a_destroyed_device_is_lost_once() {
    let mut guest = Guest::furnished();
    guest.command(Command::DestroyDevice { device: DEVICE }).unwrap();
    guest.session.progress(std::time::Duration::ZERO).unwrap();
    guest.command(Command::DestroyDevice { device: DEVICE }).unwrap();
    guest.session.progress(std::time::Duration::ZERO).unwrap();
    let lost =
        guest.events().into_iter().filter(|event| matches!(event, Event::DeviceLost { destroyed: true, .. }));
    assert_eq!(lost.count(), 1);
    guest.write(0, 4, 0, &[0; 4]).unwrap();
    guest.submit(1, &[]).unwrap();
    guest.command(create_buffer(2, 4, B::COPY_DST, false)).unwrap();
}

#[test]
fn features_that_get_past_validation_are_denied_and_the_name_is_used_up() {
    let mut guest = Guest::new(Limits::default());
    let ask = |index, features| {
        let Command::RequestDevice { call, adapter, desc, .. } = request_device(DEVICE) else {
            unreachable!()
        };
        let desc = Box::new(DeviceRequest { features, ..*desc });
        Command::RequestDevice { call, adapter, id: Id::new(index, 1), desc }
    };
    for (index, features) in [
        wgt::Features::PASSTHROUGH_SHADERS,
        wgt::Features::VULKAN_EXTERNAL_MEMORY_DMA_BUF,
        wgt::Features::PIPELINE_CACHE,
        wgt::Features::TEXTURE_BINDING_ARRAY,
        wgt::Features::EXPERIMENTAL_RAY_QUERY,
        wgt::Features::all(),
    ]
    .into_iter()
    .enumerate()
    {
        guest.command(ask(index as u32, features)).unwrap();
        let events = guest.events();
        let [Event::Reply { reply: pontoon_wire::event::Reply::Device(Err(message)), .. }] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert!(message.contains("does not offer"), "{message:?}");
    }
    guest.command(ask(6, wgt::Features::empty())).unwrap();
    assert_eq!(guest.session.usage().objects, 1);
}

/// `wgpu` panics where a bundle is not valid; a session does not.
#[test]
fn a_bundle_that_fails_is_an_error_and_no_end() {
    let bundles = [Id::new(1, 1)];
    let create = |desc| Command::CreateRenderBundle { device: DEVICE, id: bundles[0], desc: Box::new(desc) };
    let draw = [Op::Draw { first_vertex: 0, end_vertex: 3, first_instance: 0, end_instance: 1 }];
    let execute = [begin_render(), Op::ExecuteBundles { bundles: pontoon_wire::ops::Ids::Native(&bundles) }];

    // An encoder that is not valid, whose first operation panics.
    let mut guest = Guest::furnished();
    let no_colour = List::cut([Some(wgpu::TextureFormat::Depth32Float)]);
    guest.command(create(RenderBundleDesc { color_formats: no_colour, ..bundle(&draw) })).unwrap();
    let errors = guest.events();
    let [Event::Error { message, .. }] = errors.as_slice() else { panic!("one error, not {errors:?}") };
    assert!(message.contains("Depth32Float"), "{message:?}");

    // On a lost device: nothing to report, and nothing to execute.
    let mut guest = Guest::furnished();
    guest.command(Command::DestroyDevice { device: DEVICE }).unwrap();
    guest.command(create(bundle(&draw))).unwrap();
    let errors = guest.events();
    assert!(!errors.iter().any(|event| matches!(event, Event::Error { .. })), "{errors:?}");
    guest.record(0, &execute).unwrap();
}
