//! Limits and objects of several devices, and positions at the end of numbers.

use super::*;

#[test]
fn device_limits() {
    let mut trial = Trial::new();
    let adjust: [Adjust; 8] = [
        ("alignment 0", |limits| limits.min_uniform_buffer_offset_alignment = 0),
        ("alignment 1", |limits| limits.min_storage_buffer_offset_alignment = 1),
        ("alignment 3", |limits| limits.min_storage_buffer_offset_alignment = 384 + 1),
        ("groups", |limits| limits.max_bind_groups = u32::MAX),
        ("nothing", |limits| limits.max_bindings_per_bind_group = 0),
        ("buffer", |limits| limits.max_buffer_size = u64::MAX),
        ("attachments", |limits| limits.max_color_attachments = u32::MAX),
        ("vertex buffers", |limits| limits.max_vertex_buffers = u32::MAX),
    ];
    for (name, adjust) in adjust {
        trial.case(name, |guest| {
            let Command::RequestDevice { call, adapter, mut desc, .. } = request_device(DEVICE) else {
                unreachable!()
            };
            adjust(&mut desc.limits);
            guest.command(Command::RequestDevice { call, adapter, id: Id::new(1, 1), desc })?;
            let usage = B::UNIFORM | B::STORAGE;
            let desc = wgt::BufferDescriptor { label: None, size: 64, usage, mapped_at_creation: false };
            let _ = guest.command(Command::CreateBuffer { device: Id::new(1, 1), id: Id::new(2, 1), desc });
            Ok(())
        });
    }
    trial.verdict();
}

#[test]
fn objects_of_two_devices_do_not_mix() {
    let mut trial = Trial::new();
    let other = Id::new(1, 1);
    trial.case("command buffer", |guest| {
        guest.device(other);
        guest.record(0, &[])?;
        guest.frame(&|out| frame::Submit::put(out, other, 1, &[Id::new(0, 1)]))
    });
    trial.case("bind group", |guest| {
        guest.device(other);
        let entries = List::default();
        guest.command(Command::CreateBindGroup {
            device: other,
            id: Id::new(1, 1),
            label: None,
            layout: Id::new(0, 1),
            entries,
        })
    });
    trial.case("pipeline layout", |guest| {
        guest.device(other);
        let layouts = List::cut([Some(Id::new(0, 1))]);
        guest.command(Command::CreatePipelineLayout {
            device: other,
            id: Id::new(1, 1),
            label: None,
            layouts,
            immediate_size: 0,
        })
    });
    trial.case("write texture", |guest| {
        guest.device(other);
        let layout = wgt::TexelCopyBufferLayout { offset: 0, bytes_per_row: None, rows_per_image: None };
        let size = wgt::Extent3d { width: 0, height: 1, depth_or_array_layers: 1 };
        guest.command(Command::WriteTexture {
            device: other,
            destination: place(TEXTURE),
            layout,
            size,
            staged: 0,
        })
    });
    trial.case("buffers of a dropped device", |guest| {
        guest.forget(0, DEVICE.to_bits())?;
        guest.command(Command::MapBuffer { buffer: MAPPABLE, map: 1, write: false, offset: 0, size: 8 })?;
        guest.session.progress(std::time::Duration::ZERO)?;
        guest.command(Command::UnmapBuffer { buffer: MAPPABLE })
    });
    trial.verdict();
}

/// Shared memory whose every place can be read.
struct Open;

impl Arena for Open {
    fn read(&self, _: u64, out: &mut [u8]) -> Result<(), String> {
        out.fill(1);
        Ok(())
    }
    fn release(&self, _: u64) {}
    fn place(&mut self, _: &[u8]) -> Option<u64> {
        Some(0)
    }
    fn free(&mut self, _: u64) {}
    fn uploads(&self) -> Option<SharedBytes> {
        None
    }
    fn offset(&self, at: u64, _: u32) -> Result<u64, String> {
        Ok(at)
    }
    fn reserve(&mut self, _: u64) -> Option<(u64, SharedBytes)> {
        None
    }
    fn unreserve(&mut self, _: u64) {}
}

#[test]
fn positions_at_the_end_of_numbers() {
    let mut trial = Trial::new();
    for at in [0, 1 << 63, u64::MAX - 7, u64::MAX] {
        for len in [0, 3, 8, 256, 4 << 20] {
            let payload = Payload::Arena { at, len };
            for frame_code in [code::WRITE_BUFFER, code::WRITE_MAPPED, code::STAGE] {
                trial.case(format!("{frame_code} at {at}+{len}"), |_| {
                    let mut guest = Guest::with_arena(Limits::default(), Box::new(Open));
                    guest.device(DEVICE);
                    guest.command(create_buffer(0, SIZE, B::COPY_DST, true))?;
                    if frame_code == code::STAGE {
                        return guest.frame(&|out| frame::put(out, frame_code, |out| payload.put(out)));
                    }
                    if frame_code == code::WRITE_BUFFER {
                        guest.command(Command::UnmapBuffer { buffer: BUFFER })?;
                    }
                    let write =
                        WriteBuffer { buffer: BUFFER, offset: 0, total: u64::from(len), at: 0, payload };
                    guest.frame(&|out| write.put(out, frame_code))
                });
            }
        }
    }
    trial.verdict();
}
