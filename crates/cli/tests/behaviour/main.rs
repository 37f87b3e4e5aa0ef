//! Every test of behaviour: the same program runs on local `wgpu` and through Pontoon, over every
//! transport and on every back end, and must leave the same trace: results, error scopes, uncaptured
//! errors, callbacks.

mod errors;
mod in_place;
mod mapping;
mod programs;
mod render;
mod rig;

use rig::{Backend, Gpu, Transport};

/// What a program saw, line by line.
type Trace = Vec<String>;

/// Runs `program` locally and bridged and compares.
fn compare(program: fn(&Gpu) -> Trace, backend: Backend, transport: Transport) {
    let Some(local) = rig::local(backend) else { return };
    let expected = program(&local);
    assert!(!expected.is_empty(), "the program traces nothing");
    let bridged = rig::bridged(backend, transport);
    let seen = program(&bridged);
    assert_eq!(expected, seen, "left: local wgpu, right: through Pontoon");
}

macro_rules! behaviour {
    ($($module:ident :: $program:ident,)*) => {$(
        mod $program {
            use super::*;

            #[test]
            fn gpu_arena() {
                compare(super::$module::$program, Backend::Gpu, Transport::Arena);
            }

            #[test]
            fn gpu_unix() {
                compare(super::$module::$program, Backend::Gpu, Transport::Unix);
            }

            #[test]
            fn gpu_tcp() {
                compare(super::$module::$program, Backend::Gpu, Transport::Tcp);
            }

            #[test]
            fn gpu_tls() {
                compare(super::$module::$program, Backend::Gpu, Transport::Tls);
            }

            #[test]
            fn gpu_vsock() {
                compare(super::$module::$program, Backend::Gpu, Transport::Vsock);
            }

            #[test]
            fn noop_arena() {
                compare(super::$module::$program, Backend::Noop, Transport::Arena);
            }

            #[test]
            fn noop_unix() {
                compare(super::$module::$program, Backend::Noop, Transport::Unix);
            }

            #[test]
            fn noop_tcp() {
                compare(super::$module::$program, Backend::Noop, Transport::Tcp);
            }

            #[test]
            fn noop_tls() {
                compare(super::$module::$program, Backend::Noop, Transport::Tls);
            }

            #[test]
            fn noop_vsock() {
                compare(super::$module::$program, Backend::Noop, Transport::Vsock);
            }
        }
    )*};
}

behaviour! {
    programs::compute_reads_back,
    programs::large_writes_arrive_whole,
    programs::write_buffer_with_fills,
    programs::indirect_dispatch,
    programs::automatic_layouts,
    programs::dynamic_offsets,
    programs::clears_and_copies,
    programs::work_done_callbacks,
    programs::adapter_facts,
    programs::overridable_constants,
    mapping::mapped_at_creation,
    mapping::map_write,
    mapping::partial_ranges,
    mapping::map_errors,
    mapping::unmap_before_it_comes_through,
    mapping::map_on_submit,
    in_place::writes_keep_their_order,
    in_place::odd_sizes,
    in_place::targets_that_go,
    in_place::read_back_again_and_again,
    in_place::read_back_reuses_memory,
    in_place::writes_without_submission,
    render::clear_and_read,
    render::triangle,
    render::bundles_and_indirect,
    render::textures_round_trip,
    render::occlusion_queries,
    render::timestamps,
    errors::scopes_nest,
    errors::filters_choose,
    errors::uncaptured_errors,
    errors::shader_errors,
    errors::invalid_objects_spread,
    errors::encoder_errors,
    errors::encoder_used_under_a_pass,
    errors::destroyed_objects,
    errors::device_destroy,
    errors::writes_out_of_range,
    errors::debug_groups,
    errors::scopes_are_per_thread,
    errors::missing_features,
    errors::bind_group_mismatches,
}

#[test]
fn invalid_bundle_is_an_error() {
    render::invalid_bundle_is_an_error(&rig::bridged(Backend::Noop, Transport::Arena));
}

#[test]
fn threads_share_an_instance() {
    let gpu = rig::bridged(Backend::Noop, Transport::Arena);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..4 {
                    let (device, queue) =
                        pollster::block_on(gpu.adapter.request_device(&Default::default())).unwrap();
                    let usage = wgpu::BufferUsages::COPY_DST;
                    let desc =
                        wgpu::BufferDescriptor { label: None, size: 64, usage, mapped_at_creation: false };
                    queue.write_buffer(&device.create_buffer(&desc), 0, &[1; 64]);
                    queue.submit([]);
                    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
                }
            });
        }
    });
    assert!(gpu.uncaptured().is_empty());
}

#[test]
fn a_bind_group_keeps_its_buffers_on_the_account() {
    let gpu = rig::bridged(Backend::Noop, Transport::Arena);
    let doubler = programs::Doubler::new(&gpu, 1 << 28);
    let kept: Vec<_> = (0..3).map(|_| programs::Doubler::new(&gpu, 1 << 28).group).collect();
    let error = gpu.scope(wgpu::ErrorFilter::OutOfMemory, || drop(programs::Doubler::new(&gpu, 1 << 28)));
    assert_eq!(error, "Out of Memory", "four buffers of 1 GiB are alive: the limit is 4 GiB");
    drop((kept, doubler));
    let error = gpu.scope(wgpu::ErrorFilter::OutOfMemory, || drop(programs::Doubler::new(&gpu, 1 << 28)));
    assert_eq!(error, "no error");
    gpu.uncaptured();
}

#[test]
fn steady_state_makes_no_round_trips() {
    if rig::local(Backend::Gpu).is_none() {
        return;
    }
    for transport in [Transport::Arena, Transport::Unix, Transport::Tcp] {
        let gpu = rig::bridged(Backend::Gpu, transport);
        let mut trainer = pontoon_workloads::digits::Trainer::new(&gpu.device, &gpu.queue, 1).unwrap();
        trainer.step();
        gpu.wait();
        let trips = || pontoon_client::round_trips(&gpu.instance).unwrap();
        let before = trips();
        for _ in 0..20 {
            trainer.step();
        }
        assert_eq!(trips(), before, "training steps wait for nothing");
        gpu.wait();
        assert_eq!(trips(), before + 1, "one wait is one round trip");
        trainer.loss().unwrap();
        assert_eq!(trips(), before + 2, "one read-back is one round trip");
    }
}
