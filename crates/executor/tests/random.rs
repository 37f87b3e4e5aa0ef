//! Programs made up of commands that are mostly valid, with damage now and then: whatever comes, the
//! session goes on or ends with a reason.

mod guest;
#[path = "../../wire/tests/made_up/mod.rs"]
mod made_up;
#[path = "../../wire/tests/made_up/operations.rs"]
mod operations;

use guest::*;
use made_up::{Random, some_value};
use pontoon_executor::End;
use pontoon_wire::frame::{self, Payload, WriteBuffer, code};
use pontoon_wire::limits::MAX_FRAME_BODY;
use pontoon_wire::{Command, Id};
use proptest::prelude::*;

/// How many names of each kind are used: the next is the number.
#[derive(Default)]
struct Next(std::collections::HashMap<u8, u32>);

impl Next {
    fn furnished() -> Self {
        use pontoon_wire::{Kind, handle as kind};
        Self(
            [
                (kind::Device::CODE, 1),
                (kind::Buffer::CODE, 2),
                (kind::Texture::CODE, 1),
                (kind::TextureView::CODE, 1),
                (kind::Sampler::CODE, 1),
                (kind::QuerySet::CODE, 1),
                (kind::ShaderModule::CODE, 1),
                (kind::BindGroupLayout::CODE, 1),
                (kind::BindGroup::CODE, 1),
                (kind::PipelineLayout::CODE, 1),
                (kind::ComputePipeline::CODE, 1),
                (kind::RenderPipeline::CODE, 1),
                (kind::RenderBundle::CODE, 1),
            ]
            .into(),
        )
    }

    fn give<K: pontoon_wire::Kind>(&mut self, id: &mut Id<K>) {
        let next = self.0.entry(K::CODE).or_default();
        *id = Id::new(*next, 1);
        *next += 1;
    }

    /// Gives what a command creates the next name.
    fn name(&mut self, command: &mut Command) {
        use Command as C;
        match command {
            C::RequestDevice { id, .. } => self.give(id),
            C::CreateShaderModule { id, .. } => self.give(id),
            C::CreateBindGroupLayout { id, .. }
            | C::ComputeBindGroupLayout { id, .. }
            | C::RenderBindGroupLayout { id, .. } => self.give(id),
            C::CreateBindGroup { id, .. } => self.give(id),
            C::CreatePipelineLayout { id, .. } => self.give(id),
            C::CreateComputePipeline { id, .. } => self.give(id),
            C::CreateRenderPipeline { id, .. } => self.give(id),
            C::CreateBuffer { id, .. } => self.give(id),
            C::CreateTexture { id, .. } => self.give(id),
            C::CreateTextureView { id, .. } => self.give(id),
            C::CreateExternalTexture { id, .. } => self.give(id),
            C::CreateSampler { id, .. } => self.give(id),
            C::CreateQuerySet { id, .. } => self.give(id),
            C::CreateCommandEncoder { id, .. } => self.give(id),
            C::FinishEncoder { id, .. } => self.give(id),
            C::CreateRenderBundle { id, .. } => self.give(id),
            _ => {}
        }
    }
}

/// A frame for a session in which `submitted` submissions were made.
fn random_frame(random: &mut Random, next: &mut Next, submitted: &mut u64, out: &mut Vec<u8>) {
    match random.below(12) {
        0..6 => {
            let mut command: Command = some_value(random);
            next.name(&mut command);
            frame::put_encoded(out, code::COMMAND, &command);
        }
        6..8 => {
            let id = Id::new(next.0.get(&12).copied().unwrap_or(0).saturating_sub(1), 1);
            let mut ops = Vec::new();
            let begins = ["BeginComputePass", "BeginRenderPass", "EndPass"];
            for _ in 0..random.below(6) {
                let layout = operations::LAYOUTS[random.below(40) as usize];
                if !begins.contains(&layout.1) || random.below(4) == 0 {
                    operations::put(random, layout, &mut ops);
                }
            }
            frame::Encode { encoder: id, ops: &ops }.put(out);
        }
        8 => {
            let bytes = vec![1; random.below(64) as usize];
            let code = if random.below(2) == 0 { code::WRITE_BUFFER } else { code::WRITE_MAPPED };
            let (offset, total) = (random.below(64) * 4, bytes.len() as u64);
            WriteBuffer {
                buffer: Id::new(random.below(3) as u32, 1),
                offset,
                total,
                at: 0,
                payload: Payload::Inline(&bytes),
            }
            .put(out, code);
        }
        9 => frame::put(out, code::STAGE, |out| Payload::Inline(&[1; 12]).put(out)),
        10 => {
            *submitted += 1;
            let last = next.0.get(&13).copied().unwrap_or(0);
            let buffers: Vec<_> = last.checked_sub(1).map(|index| Id::new(index, 1)).into_iter().collect();
            frame::Submit::put(out, DEVICE, *submitted, &buffers);
        }
        _ => frame::Forget {
            kind: random.below(16) as u8,
            id: Id::<pontoon_wire::handle::Buffer>::new(random.below(3) as u32, 1).to_bits(),
        }
        .put(out),
    }
}

fn program(seed: u64) -> Result<(), TestCaseError> {
    let random = &mut Random::new(seed);
    let (mut guest, mut next, mut submitted) = (Guest::furnished(), Next::furnished(), 0);
    for _ in 0..60 {
        let mut bytes = Vec::new();
        random_frame(random, &mut next, &mut submitted, &mut bytes);
        if random.below(10) == 0 {
            let at = 8 + random.below((bytes.len() as u64).saturating_sub(8)) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        let (code, body, _) = frame::split(&bytes, MAX_FRAME_BODY).unwrap().unwrap();
        let last = match code {
            code::COMMAND => format!("{:?}", pontoon_wire::decode::<Command>(body)),
            code => format!("frame code {code}: {body:?}"),
        };
        let result = guest
            .session
            .execute(code, body)
            .and_then(|()| guest.session.progress(std::time::Duration::ZERO));
        guest.events();
        match result {
            Ok(()) => {}
            Err(End::Panic(message)) => return Err(TestCaseError::fail(format!("{message}\nby {last}"))),
            // One mistake ends a session; what it was furnished with is good for another.
            Err(end) => {
                prop_assert!(!end.to_string().is_empty());
                (guest, next, submitted) = (Guest::furnished(), Next::furnished(), 0);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_session_goes_on_or_ends_with_a_reason(seed: u64) {
        program(seed)?;
    }
}

/// What once went wrong: a vertex attribute whose offset wraps in `wgpu`.
#[test]
fn seeds_that_found_something() {
    program(7973272888441559660).unwrap();
}
