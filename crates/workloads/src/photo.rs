//! Owns the photograph and the filter that takes the noise out of it again.

use wgpu::{BufferUsages, Device, Extent3d, Queue, Texture, TextureFormat, TextureUsages};

use crate::{Error, gpu, report::Image, rng::Rng};

const PHOTO: &[u8] = include_bytes!("../../../assets/grace_hopper.png");
const FORMAT: TextureFormat = TextureFormat::Rgba8Unorm;
/// Pixels of one workgroup.
const TILE: (u32, u32) = (32, 16);
/// Filter strength in deviations of the noise; less keeps more detail, and more noise.
const STRENGTH: f32 = 0.55;
/// Deviation of the luma of noise that is independent in each channel.
const LUMA: f32 = 0.668;

/// The photograph the example works on: Grace Hopper, 512x600.
pub fn clean() -> Result<Image, Error> {
    Image::from_png(PHOTO)
}

/// `image` with noise of deviation `sigma` (in steps of 1/255) on every colour channel; the same `seed`
/// gives the same noise on every machine.
pub fn add_noise(image: &Image, sigma: f32, seed: u64) -> Image {
    let mut rng = Rng::new(seed);
    let mut noisy = image.clone();
    for pixel in noisy.pixels.chunks_exact_mut(4) {
        for channel in &mut pixel[..3] {
            *channel = (f32::from(*channel) + rng.normal() * sigma).round() as u8;
        }
    }
    noisy
}

/// Peak signal-to-noise ratio of the colour channels in decibels; infinite for equal pictures.
pub fn psnr(a: &Image, b: &Image) -> Result<f64, Error> {
    same_size(a, (b.width, b.height))?;
    let square = |(i, (x, y)): (usize, (&u8, &u8))| match i % 4 {
        3 => 0.0,
        _ => (f64::from(*x) - f64::from(*y)).powi(2),
    };
    let pairs = a.pixels.iter().zip(&b.pixels).enumerate();
    let mean = pairs.map(square).sum::<f64>() / (a.pixels.len() / 4 * 3) as f64;
    Ok(10.0 * (255.0 * 255.0 / mean).log10())
}

fn same_size(image: &Image, (width, height): (u32, u32)) -> Result<(), Error> {
    if (image.width, image.height) == (width, height) {
        return Ok(());
    }
    Err(Error::Size { width, height, got_width: image.width, got_height: image.height })
}

/// A non-local-means filter for pictures of one size.
pub struct Denoiser {
    device: Device,
    queue: Queue,
    size: Extent3d,
    source: Texture,
    target: Texture,
    group: wgpu::BindGroup,
    pipeline: wgpu::ComputePipeline,
}

impl Denoiser {
    /// Prepares for pictures of `width` x `height` with noise of deviation `sigma` (as in [`add_noise`]).
    pub fn new(
        device: &Device,
        queue: &Queue,
        (width, height): (u32, u32),
        sigma: f32,
    ) -> Result<Self, Error> {
        gpu::check(width > 0, "width", width, "at least 1")?;
        gpu::check(height > 0, "height", height, "at least 1")?;
        let have = device.limits().max_texture_dimension_2d;
        let need = width.max(height);
        gpu::require("max_texture_dimension_2d", have.into(), need.into())?;

        let size = Extent3d { width, height, depth_or_array_layers: 1 };
        let source = picture(device, "noisy", size, TextureUsages::TEXTURE_BINDING);
        let target = picture(device, "denoised", size, TextureUsages::STORAGE_BINDING);
        let settings = gpu::filled(device, queue, "settings", BufferUsages::UNIFORM, &settings(sigma));
        let layout = layout(device);
        let group = gpu::bind(
            device,
            "photo",
            &layout,
            &[
                settings.as_entire_binding(),
                wgpu::BindingResource::TextureView(&source.create_view(&Default::default())),
                wgpu::BindingResource::TextureView(&target.create_view(&Default::default())),
            ],
        );
        let module = gpu::shader(device, "photo", include_str!("shaders/photo.wgsl"));
        let pipeline_layout = gpu::pipeline_layout(device, "photo", &layout);
        Ok(Self {
            device: device.clone(),
            queue: queue.clone(),
            size,
            source,
            target,
            group,
            pipeline: gpu::compute_pipeline(device, &module, &pipeline_layout, "denoise"),
        })
    }

    /// Uploads `noisy`, filters it and brings the result back.
    pub fn denoise(&self, noisy: &Image) -> Result<Image, Error> {
        self.submit(noisy)?;
        gpu::read_texture(&self.device, &self.queue, &self.target)
    }

    /// Uploads `noisy` and filters it, and reads nothing back.
    pub fn submit(&self, noisy: &Image) -> Result<(), Error> {
        same_size(noisy, (self.size.width, self.size.height))?;
        let layout = wgpu::TexelCopyBufferLayout {
            offset: 0,
            bytes_per_row: Some(4 * self.size.width),
            rows_per_image: None,
        };
        let all = self.source.as_image_copy();
        self.queue.write_texture(all, &noisy.pixels, layout, self.size);

        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        let (across, down) = TILE;
        pass.dispatch_workgroups(self.size.width.div_ceil(across), self.size.height.div_ceil(down), 1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
        Ok(())
    }
}

/// The noise variance and the falloff of the weights, as the shader's `Settings`.
fn settings(sigma: f32) -> [f32; 4] {
    let luma = (sigma * LUMA / 255.0).max(1e-4);
    let strength = luma * STRENGTH;
    [luma * luma, 1.0 / (strength * strength), 0.0, 0.0]
}

fn picture(device: &Device, label: &str, size: Extent3d, usage: TextureUsages) -> Texture {
    device.create_texture(&wgpu::TextureDescriptor {
        label: Some(label),
        size,
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: FORMAT,
        usage: usage | TextureUsages::COPY_DST | TextureUsages::COPY_SRC,
        view_formats: &[],
    })
}

fn layout(device: &Device) -> wgpu::BindGroupLayout {
    let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty,
        count: None,
    };
    let uniform = wgpu::BindingType::Buffer {
        ty: wgpu::BufferBindingType::Uniform,
        has_dynamic_offset: false,
        min_binding_size: None,
    };
    let source = wgpu::BindingType::Texture {
        sample_type: wgpu::TextureSampleType::Float { filterable: false },
        view_dimension: wgpu::TextureViewDimension::D2,
        multisampled: false,
    };
    let target = wgpu::BindingType::StorageTexture {
        access: wgpu::StorageTextureAccess::WriteOnly,
        format: FORMAT,
        view_dimension: wgpu::TextureViewDimension::D2,
    };
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("photo"),
        entries: &[entry(0, uniform), entry(1, source), entry(2, target)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_photograph_is_there_and_noise_costs_what_it_should() {
        let clean = clean().unwrap();
        assert_eq!((clean.width, clean.height), (512, 600));
        let noisy = add_noise(&clean, 25.0, 1);
        assert_eq!(noisy, add_noise(&clean, 25.0, 1));
        // Uniform noise of deviation 25 has a PSNR of 20.2 dB; clipping at black and white gains some.
        let psnr = psnr(&clean, &noisy).unwrap();
        assert!((20.0..22.0).contains(&psnr), "{psnr}");
    }
}
