//! Owns the scene: a still life on a polished floor at evening, drawn offscreen.

mod math;
mod mesh;
mod pipelines;
mod targets;
mod texture;
mod world;

use wgpu::{BindGroup, Buffer, BufferUsages, Device, Queue, RenderBundle};

use crate::{Error, gpu, report::Image};
use pipelines::Pipelines;
use targets::Targets;
use world::{Frame, World};

/// How large the picture is and how smooth its edges are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Samples per pixel: 1 or 4; [`samples_for`] tells what an adapter has.
    pub samples: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { width: 960, height: 640, samples: 4 }
    }
}

impl Config {
    /// Fails when no picture of this size can be drawn.
    pub fn check(&self) -> Result<(), Error> {
        let range = |what, got: u32| gpu::check((8..=8192).contains(&got), what, got, "from 8 to 8192");
        range("width", self.width)?;
        range("height", self.height)?;
        gpu::check(matches!(self.samples, 1 | 4), "samples", self.samples, "1 or 4")
    }
}

/// The samples per pixel that `adapter` can draw this scene with: 4 if it has them, else 1.
pub fn samples_for(adapter: &wgpu::Adapter) -> u32 {
    let four = |format| {
        let features = adapter.get_texture_format_features(format);
        features.flags.sample_count_supported(4)
    };
    if four(targets::COLOUR) && four(targets::DEPTH) {
        return 4;
    }
    1
}

/// The objects and their materials on the device, shared by all passes.
struct Geometry {
    vertices: Buffer,
    indices: Buffer,
    instances: Buffer,
    draws: Vec<world::Draw>,
}

/// The scene, ready to be drawn.
pub struct Scene {
    device: Device,
    queue: Queue,
    config: Config,
    frames: [Buffer; 2],
    targets: Targets,
    shadow: RenderBundle,
    mirrored: RenderBundle,
    view: RenderBundle,
    finish: wgpu::RenderPipeline,
    finish_group: BindGroup,
}

impl Scene {
    /// Uploads geometry and textures, makes pipelines and records the render bundles.
    pub fn new(device: &Device, queue: &Queue, config: Config) -> Result<Self, Error> {
        config.check()?;
        let have = device.limits().max_texture_dimension_2d;
        let need = config.width.max(config.height).max(targets::SHADOW_SIDE);
        gpu::require("max_texture_dimension_2d", have.into(), need.into())?;

        let geometry = Geometry::new(device, queue, World::new());
        let targets = Targets::new(device, &config);
        let pipelines = Pipelines::new(device, config.samples);
        let frames = world::frames(config.width as f32 / config.height as f32, 0.0)
            .map(|frame| gpu::filled(device, queue, "frame", BufferUsages::UNIFORM, &[frame]));
        let frame_groups = frames.each_ref().map(|frame| {
            let binding = [frame.as_entire_binding()];
            gpu::bind(device, "frame", &pipelines.frame, &binding)
        });
        let materials = texture::upload(device, queue);
        let surface = pipelines.bind_surface(device, &materials, &targets.shadow);
        let reflection = pipelines.bind_reflection(device, &targets.mirrored);
        let [from_eye, from_below] = &frame_groups;
        Ok(Self {
            device: device.clone(),
            queue: queue.clone(),
            config,
            shadow: shadow_bundle(device, &pipelines, &geometry, from_eye),
            mirrored: mirrored_bundle(device, &pipelines, &geometry, from_below, &surface),
            view: view_bundle(device, &pipelines, &geometry, [from_eye, &surface, &reflection]),
            finish_group: pipelines.bind_finish(device, &targets.colour),
            finish: pipelines.finish,
            frames,
            targets,
        })
    }

    /// The size and the samples.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Draws the scene with the camera `turn` around it (1 is all around) in one submission; reads nothing
    /// back.
    pub fn draw(&self, turn: f32) {
        let aspect = self.config.width as f32 / self.config.height as f32;
        for (buffer, frame) in self.frames.iter().zip(world::frames(aspect, turn)) {
            let frame: Frame = frame;
            self.queue.write_buffer(buffer, 0, bytemuck::bytes_of(&frame));
        }
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let targets = &self.targets;
        targets.shadow_pass(&mut encoder).execute_bundles([&self.shadow]);
        targets.mirrored_pass(&mut encoder).execute_bundles([&self.mirrored]);
        targets.view_pass(&mut encoder).execute_bundles([&self.view]);
        let mut pass = targets.finish_pass(&mut encoder);
        pass.set_pipeline(&self.finish);
        pass.set_bind_group(0, &self.finish_group, &[]);
        pass.draw(0..3, 0..1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }

    /// Brings the picture drawn last back. Waits for the device.
    pub fn read(&self) -> Result<Image, Error> {
        gpu::read_texture(&self.device, &self.queue, &self.targets.picture)
    }

    /// Draws the scene from the front and brings the picture back.
    pub fn render(&self) -> Result<Image, Error> {
        self.draw(0.0);
        self.read()
    }
}

impl Geometry {
    fn new(device: &Device, queue: &Queue, world: World) -> Self {
        let vertex = BufferUsages::VERTEX;
        Self {
            vertices: gpu::filled(device, queue, "vertices", vertex, &world.vertices),
            indices: gpu::filled(device, queue, "indices", BufferUsages::INDEX, &world.indices),
            instances: gpu::filled(device, queue, "instances", vertex, &world.instances),
            draws: world.draws,
        }
    }

    /// Every object but the floor, and the floor.
    fn split(&self) -> (&[world::Draw], &[world::Draw]) {
        self.draws.split_at(self.draws.len() - 1)
    }

    fn draw<'a>(&'a self, bundle: &mut wgpu::RenderBundleEncoder<'a>, draws: &[world::Draw]) {
        bundle.set_vertex_buffer(0, self.vertices.slice(..));
        bundle.set_vertex_buffer(1, self.instances.slice(..));
        bundle.set_index_buffer(self.indices.slice(..), wgpu::IndexFormat::Uint32);
        for draw in draws.iter().cloned() {
            bundle.draw_indexed(draw.indices, draw.base_vertex, draw.instances);
        }
    }
}

fn bundle_encoder<'a>(
    device: &'a Device,
    label: &'a str,
    colour: Option<wgpu::TextureFormat>,
    sample_count: u32,
) -> wgpu::RenderBundleEncoder<'a> {
    device.create_render_bundle_encoder(&wgpu::RenderBundleEncoderDescriptor {
        label: Some(label),
        color_formats: colour.map(Some).as_slice(),
        depth_stencil: Some(wgpu::RenderBundleDepthStencil {
            format: targets::DEPTH,
            depth_read_only: false,
            stencil_read_only: true,
        }),
        sample_count,
        multiview: None,
    })
}

fn shadow_bundle(
    device: &Device,
    pipelines: &Pipelines,
    geometry: &Geometry,
    frame: &BindGroup,
) -> RenderBundle {
    let mut bundle = bundle_encoder(device, "shadow", None, 1);
    bundle.set_pipeline(&pipelines.shadow);
    bundle.set_bind_group(0, frame, &[]);
    geometry.draw(&mut bundle, geometry.split().0);
    bundle.finish(&Default::default())
}

fn mirrored_bundle(
    device: &Device,
    pipelines: &Pipelines,
    geometry: &Geometry,
    frame: &BindGroup,
    surface: &BindGroup,
) -> RenderBundle {
    let mut bundle = bundle_encoder(device, "mirrored", Some(targets::COLOUR), 1);
    bundle.set_bind_group(0, frame, &[]);
    bundle.set_pipeline(&pipelines.mirrored_objects);
    bundle.set_bind_group(1, surface, &[]);
    geometry.draw(&mut bundle, geometry.split().0);
    bundle.set_pipeline(&pipelines.mirrored_sky);
    bundle.draw(0..3, 0..1);
    bundle.finish(&Default::default())
}

fn view_bundle(
    device: &Device,
    pipelines: &Pipelines,
    geometry: &Geometry,
    [frame, surface, reflection]: [&BindGroup; 3],
) -> RenderBundle {
    let (objects, floor) = geometry.split();
    let mut bundle = bundle_encoder(device, "view", Some(targets::COLOUR), pipelines.samples);
    bundle.set_bind_group(0, frame, &[]);
    bundle.set_pipeline(&pipelines.objects);
    bundle.set_bind_group(1, surface, &[]);
    geometry.draw(&mut bundle, objects);
    bundle.set_pipeline(&pipelines.floor);
    bundle.set_bind_group(2, reflection, &[]);
    geometry.draw(&mut bundle, floor);
    bundle.set_pipeline(&pipelines.sky);
    bundle.draw(0..3, 0..1);
    bundle.finish(&Default::default())
}
