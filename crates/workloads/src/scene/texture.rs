//! Owns the textures of the scene: computed from integer hashes, with all their smaller levels.

use wgpu::{Device, Extent3d, Queue, Texture, TextureFormat, TextureUsages};

const SIDE: usize = 256;
const LEVELS: u32 = 9;

/// Which layer of the texture array shows what.
pub(super) mod layer {
    pub const PLAIN: f32 = 0.0;
    pub const CHECKER: f32 = 1.0;
    pub const BRICK: f32 = 2.0;
    pub const PLANET: f32 = 3.0;
    pub const MARBLE: f32 = 4.0;
    pub const STRIPES: f32 = 5.0;
}

type Pixel = [f32; 3];

/// Uploads all layers with all levels.
pub(super) fn upload(device: &Device, queue: &Queue) -> Texture {
    let layers: [fn(f32, f32) -> Pixel; 6] = [plain, checker, brick, planet, marble, stripes];
    let texture = device.create_texture(&wgpu::TextureDescriptor {
        label: Some("materials"),
        size: extent(SIDE, layers.len()),
        mip_level_count: LEVELS,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: TextureFormat::Rgba8UnormSrgb,
        usage: TextureUsages::TEXTURE_BINDING | TextureUsages::COPY_DST,
        view_formats: &[],
    });
    for (index, paint) in layers.into_iter().enumerate() {
        let mut side = SIDE;
        let mut pixels = painted(paint);
        for level in 0..LEVELS {
            write(queue, &texture, index, level, side, &pixels);
            pixels = halved(&pixels, side);
            side /= 2;
        }
    }
    texture
}

fn extent(side: usize, layers: usize) -> Extent3d {
    Extent3d { width: side as u32, height: side as u32, depth_or_array_layers: layers as u32 }
}

fn write(queue: &Queue, texture: &Texture, index: usize, level: u32, side: usize, pixels: &[Pixel]) {
    let byte = |x: f32| (x.clamp(0.0, 1.0) * 255.0).round() as u8;
    let bytes: Vec<u8> = pixels.iter().flat_map(|&[r, g, b]| [byte(r), byte(g), byte(b), 255]).collect();
    let target = wgpu::TexelCopyTextureInfo {
        texture,
        mip_level: level,
        origin: wgpu::Origin3d { x: 0, y: 0, z: index as u32 },
        aspect: wgpu::TextureAspect::All,
    };
    let layout =
        wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(4 * side as u32), rows_per_image: None };
    queue.write_texture(target, &bytes, layout, extent(side, 1));
}

fn painted(paint: fn(f32, f32) -> Pixel) -> Vec<Pixel> {
    let unit = |i: usize| (i as f32 + 0.5) / SIDE as f32;
    let row = |y: usize| (0..SIDE).map(move |x| paint(unit(x), unit(y)));
    (0..SIDE).flat_map(row).collect()
}

/// Half the side, each pixel the mean of four.
fn halved(pixels: &[Pixel], side: usize) -> Vec<Pixel> {
    let half = side / 2;
    let mean = |i: usize| {
        let corner = i / half * 2 * side + i % half * 2;
        let four = [corner, corner + 1, corner + side, corner + side + 1];
        std::array::from_fn(|c| four.iter().map(|&p| pixels[p][c]).sum::<f32>() / 4.0)
    };
    (0..half * half).map(mean).collect()
}

fn mix(a: Pixel, b: Pixel, t: f32) -> Pixel {
    let t = t.clamp(0.0, 1.0);
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * t)
}

fn smooth(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A number from 0 to 1 that belongs to a lattice point; the lattice repeats after `period`.
fn lattice(x: i32, y: i32, period: i32) -> f32 {
    let wrapped = |v: i32| v.rem_euclid(period) as u32;
    let mut h = wrapped(x).wrapping_mul(0x9e37_79b1) ^ wrapped(y).wrapping_mul(0x85eb_ca77);
    h ^= period as u32;
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    ((h ^ (h >> 15)) >> 8) as f32 / (1 << 24) as f32
}

/// Smooth noise which repeats after the unit square.
fn noise(u: f32, v: f32, period: i32) -> f32 {
    let (x, y) = (u * period as f32, v * period as f32);
    let (column, row) = (x.floor() as i32, y.floor() as i32);
    let (tx, ty) = (smooth(x - x.floor()), smooth(y - y.floor()));
    let at = |dx, dy| lattice(column + dx, row + dy, period);
    let top = at(0, 0) + (at(1, 0) - at(0, 0)) * tx;
    let bottom = at(0, 1) + (at(1, 1) - at(0, 1)) * tx;
    top + (bottom - top) * ty
}

/// Five octaves of noise, around 0.5.
fn clouds(u: f32, v: f32, period: i32) -> f32 {
    let octave = |i: i32| noise(u, v, period << i) / (2 << i) as f32;
    (0..5).map(octave).sum::<f32>() + 1.0 / 64.0
}

/// Thin lines that wander, 1 in their middle.
fn veins(u: f32, v: f32, period: i32) -> f32 {
    let t = 1.0 - (clouds(u, v, period) - 0.5).abs() * 9.0;
    t.max(0.0) * t.max(0.0)
}

fn plain(_: f32, _: f32) -> Pixel {
    [1.0; 3]
}

fn checker(u: f32, v: f32) -> Pixel {
    let (x, y) = (u * 4.0, v * 4.0);
    let light = (x.floor() + y.floor()) as i32 % 2 == 0;
    let edge = [x, y].map(|t| (t - t.round()).abs()).into_iter().fold(1.0, f32::min);
    let stone = if light {
        mix([0.86, 0.83, 0.78], [0.62, 0.58, 0.54], veins(u, v, 5))
    } else {
        mix([0.13, 0.15, 0.18], [0.36, 0.38, 0.40], veins(u, v, 6) * 0.8)
    };
    let seam = 1.0 - smooth(edge / 0.025);
    mix(stone, [0.22, 0.21, 0.20], seam)
}

fn brick(u: f32, v: f32) -> Pixel {
    let row = (v * 8.0).floor();
    let x = u * 4.0 + if row as i32 % 2 == 0 { 0.0 } else { 0.5 };
    let (fx, fy) = (x - x.floor(), v * 8.0 - row);
    let edge = (fx.min(1.0 - fx) * 2.0).min(fy.min(1.0 - fy));
    let tone = lattice((x.floor() as i32) % 4, row as i32, 8);
    let clay = mix([0.52, 0.20, 0.13], [0.76, 0.38, 0.24], tone);
    let clay = mix(clay, [0.35, 0.13, 0.10], clouds(u, v, 24) * 0.9 - 0.2);
    let mortar = mix([0.66, 0.63, 0.58], [0.50, 0.48, 0.45], clouds(u, v, 16));
    mix(mortar, clay, smooth((edge - 0.04) / 0.06))
}

/// Seas, shores, land, ice and clouds.
fn planet(u: f32, v: f32) -> Pixel {
    let height = clouds(u, v, 4) * 1.25 - 0.08;
    let cold = smooth(((v - 0.5).abs() - 0.36 + height * 0.1) / 0.06);
    let sea = mix([0.02, 0.10, 0.30], [0.08, 0.36, 0.58], height * 2.2 - 0.3);
    let land = mix([0.20, 0.42, 0.16], [0.62, 0.52, 0.32], (height - 0.52) * 7.0);
    let shore = smooth((height - 0.505) / 0.02);
    let ground = mix(mix(sea, land, shore), [0.94, 0.96, 0.98], cold);
    mix(ground, [1.0; 3], smooth((clouds(u + 0.37, v, 9) - 0.56) / 0.14) * 0.8)
}

fn marble(u: f32, v: f32) -> Pixel {
    let fine = veins(u, v, 4) * 0.75 + veins(v, u, 9) * 0.25;
    let base = mix([0.94, 0.92, 0.88], [0.84, 0.82, 0.80], clouds(u, v, 8));
    mix(base, [0.42, 0.40, 0.42], fine)
}

fn stripes(u: f32, v: f32) -> Pixel {
    let x = (u + v) * 4.0;
    let t = ((x - x.floor()) - 0.5).abs() * 4.0 - 1.0;
    mix([0.93, 0.90, 0.84], [0.10, 0.32, 0.42], smooth(t * 12.0 + 0.5))
}
