//! Owns what the scene is drawn into, and the four render passes over it.

use wgpu::{
    CommandEncoder, Device, LoadOp, Operations, RenderPass, StoreOp, Texture, TextureFormat, TextureUsages,
    TextureView,
};

use super::Config;

pub(super) const COLOUR: TextureFormat = TextureFormat::Rgba16Float;
pub(super) const DEPTH: TextureFormat = TextureFormat::Depth32Float;
pub(super) const PICTURE: TextureFormat = TextureFormat::Rgba8UnormSrgb;
/// Side of the shadow map.
pub(super) const SHADOW_SIDE: u32 = 2048;

/// The textures that the passes write.
pub(super) struct Targets {
    pub shadow: TextureView,
    pub mirrored: TextureView,
    mirrored_depth: TextureView,
    pub colour: TextureView,
    /// The samples that `colour` is made of; none when there is one sample per pixel.
    samples: Option<TextureView>,
    depth: TextureView,
    pub picture: Texture,
    picture_view: TextureView,
}

impl Targets {
    pub(super) fn new(device: &Device, config: &Config) -> Self {
        use TextureUsages as Usage;
        let whole = [config.width, config.height];
        let half = whole.map(|side| side.div_ceil(2));
        let drawn = Usage::RENDER_ATTACHMENT;
        let looked_at = drawn | Usage::TEXTURE_BINDING;
        let view = |label, size, samples, format, usage| {
            texture(device, label, size, samples, format, usage).create_view(&Default::default())
        };
        let shadow_size = [SHADOW_SIDE; 2];
        let picture = texture(device, "picture", whole, 1, PICTURE, drawn | Usage::COPY_SRC);
        let many = (config.samples > 1).then_some(config.samples);
        Self {
            shadow: view("shadow", shadow_size, 1, DEPTH, looked_at),
            mirrored: view("mirrored", half, 1, COLOUR, looked_at),
            mirrored_depth: view("mirrored depth", half, 1, DEPTH, drawn),
            colour: view("colour", whole, 1, COLOUR, looked_at),
            samples: many.map(|count| view("samples", whole, count, COLOUR, drawn)),
            depth: view("depth", whole, config.samples, DEPTH, drawn),
            picture_view: picture.create_view(&Default::default()),
            picture,
        }
    }

    pub(super) fn shadow_pass<'e>(&self, encoder: &'e mut CommandEncoder) -> RenderPass<'e> {
        pass(encoder, "shadow", None, Some((&self.shadow, StoreOp::Store)))
    }

    pub(super) fn mirrored_pass<'e>(&self, encoder: &'e mut CommandEncoder) -> RenderPass<'e> {
        let depth = Some((&self.mirrored_depth, StoreOp::Discard));
        let colour = attachment(&self.mirrored, None);
        pass(encoder, "mirrored", Some(colour), depth)
    }

    pub(super) fn view_pass<'e>(&self, encoder: &'e mut CommandEncoder) -> RenderPass<'e> {
        let colour = match &self.samples {
            Some(samples) => attachment(samples, Some(&self.colour)),
            None => attachment(&self.colour, None),
        };
        let depth = Some((&self.depth, StoreOp::Discard));
        pass(encoder, "view", Some(colour), depth)
    }

    pub(super) fn finish_pass<'e>(&self, encoder: &'e mut CommandEncoder) -> RenderPass<'e> {
        let colour = attachment(&self.picture_view, None);
        pass(encoder, "finish", Some(colour), None)
    }
}

fn texture(
    device: &Device,
    label: &str,
    [width, height]: [u32; 2],
    sample_count: u32,
    format: TextureFormat,
    usage: TextureUsages,
) -> Texture {
    device.create_texture(&wgpu::TextureDescriptor {
        label: Some(label),
        size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count,
        dimension: wgpu::TextureDimension::D2,
        format,
        usage,
        view_formats: &[],
    })
}

/// Samples that are resolved need not be kept.
fn attachment<'a>(
    view: &'a TextureView,
    resolve_target: Option<&'a TextureView>,
) -> wgpu::RenderPassColorAttachment<'a> {
    let store = match resolve_target {
        Some(_) => StoreOp::Discard,
        None => StoreOp::Store,
    };
    wgpu::RenderPassColorAttachment {
        view,
        depth_slice: None,
        resolve_target,
        ops: Operations { load: LoadOp::Clear(wgpu::Color::BLACK), store },
    }
}

fn pass<'e>(
    encoder: &'e mut CommandEncoder,
    label: &str,
    colour: Option<wgpu::RenderPassColorAttachment<'_>>,
    depth: Option<(&TextureView, StoreOp)>,
) -> RenderPass<'e> {
    let depth = depth.map(|(view, store)| wgpu::RenderPassDepthStencilAttachment {
        view,
        depth_ops: Some(Operations { load: LoadOp::Clear(1.0), store }),
        stencil_ops: None,
    });
    encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
        label: Some(label),
        color_attachments: colour.map(Some).as_slice(),
        depth_stencil_attachment: depth,
        timestamp_writes: None,
        occlusion_query_set: None,
        multiview_mask: None,
    })
}
