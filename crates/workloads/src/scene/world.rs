//! Owns what stands in the scene and where, the light, and the cameras.

use super::math::{self, Mat4, TAU, Vec3};
use super::mesh::{self, Mesh, Vertex};
use super::texture::layer;

/// One object: where it stands and what it is made of.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Instance {
    pub world: Mat4,
    /// Red, green, blue, roughness.
    pub colour: [f32; 4],
    /// Metalness, texture layer, how often the texture repeats across and down.
    pub material: [f32; 4],
}

/// What shaders are told about a view.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Frame {
    clip_from_world: Mat4,
    clip_from_light: Mat4,
    eye: [f32; 4],
    right: [f32; 4],
    up: [f32; 4],
    forward: [f32; 4],
    sun: [f32; 4],
}

/// A draw call: some indices, for some instances.
#[derive(Clone)]
pub(super) struct Draw {
    pub indices: std::ops::Range<u32>,
    pub base_vertex: i32,
    pub instances: std::ops::Range<u32>,
}

/// All objects in one set of arrays; the floor is the last draw.
#[derive(Default)]
pub(super) struct World {
    pub vertices: Vec<Vertex>,
    pub indices: Vec<u32>,
    pub instances: Vec<Instance>,
    pub draws: Vec<Draw>,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self::default();
        world.put(mesh::sphere(), spheres());
        world.put(mesh::ring(), rings());
        world.put(mesh::knot(), vec![knot()]);
        world.put(mesh::cylinder(), cylinders());
        world.put(mesh::cube(), cubes());
        world.put(mesh::floor(), vec![floor()]);
        world
    }

    fn put(&mut self, mesh: Mesh, instances: Vec<Instance>) {
        let first_index = self.indices.len() as u32;
        let first_instance = self.instances.len() as u32;
        let base_vertex = self.vertices.len() as i32;
        self.vertices.extend(mesh.vertices);
        self.indices.extend(mesh.indices);
        self.instances.extend(instances);
        self.draws.push(Draw {
            indices: first_index..self.indices.len() as u32,
            base_vertex,
            instances: first_instance..self.instances.len() as u32,
        });
    }
}

fn object(world: Mat4, colour: Vec3, roughness: f32, material: [f32; 4]) -> Instance {
    let [r, g, b] = colour;
    Instance { world, colour: [r, g, b, roughness], material }
}

const WHITE: Vec3 = [1.0; 3];
const MARBLE: [f32; 4] = [0.0, layer::MARBLE, 1.0, 1.0];
const METAL: [f32; 4] = [1.0, layer::PLAIN, 1.0, 1.0];

fn ball(at: Vec3, radius: f32) -> Mat4 {
    math::place(at, [radius; 3], 0.0, 0.0)
}

fn spheres() -> Vec<Instance> {
    let planet = math::place([-3.35, 1.25, -0.2], [1.25; 3], 0.9, 0.35);
    let mut all = vec![
        object(planet, WHITE, 0.45, [0.0, layer::PLANET, 1.0, 1.0]),
        object(ball([3.1, 0.95, 0.75], 0.95), [0.96, 0.97, 0.98], 0.06, METAL),
        object(
            math::place([4.75, 0.62, -1.6], [0.62; 3], 0.0, 0.5),
            WHITE,
            0.25,
            [0.0, layer::STRIPES, 2.0, 1.0],
        ),
    ];
    // A string of small balls in front, from warm to cold and from matt to polished.
    for i in 0..9 {
        let t = i as f32 / 8.0;
        let (sin, cos) = math::sin_cos((0.30 - 0.60 * t) * TAU / 2.0);
        let at = [-4.1 * sin, 0.27, 4.1 * cos - 0.55];
        let hue = |shift: f32| {
            let (_, wave) = math::sin_cos((t * 0.72 + shift) * TAU);
            let level = 0.5 + 0.5 * wave;
            0.03 + 0.85 * level * level
        };
        let colour = [hue(0.0), hue(0.67), hue(0.33)];
        let metal = if i % 2 == 0 { 0.0 } else { 0.85 };
        let material = [metal, layer::PLAIN, 1.0, 1.0];
        all.push(object(ball(at, 0.27), colour, 0.55 - 0.45 * t, material));
    }
    all
}

fn rings() -> Vec<Instance> {
    let leaning = math::place([-1.75, 0.93, 1.55], [0.72; 3], 0.0, 1.25);
    let flat = math::place([4.75, 0.14, -1.6], [0.5; 3], 0.0, 0.0);
    vec![
        object(leaning, [0.95, 0.45, 0.30], 0.28, METAL),
        object(flat, [0.15, 0.15, 0.17], 0.5, [0.0, layer::PLAIN, 1.0, 1.0]),
    ]
}

fn knot() -> Instance {
    let place = math::place([0.0, 2.25, -0.4], [0.98; 3], 0.35, 1.35);
    object(place, [1.0, 0.72, 0.26], 0.2, METAL)
}

/// The pedestal under the knot, and columns in a half circle behind.
fn cylinders() -> Vec<Instance> {
    let standing = |x: f32, y: f32, z: f32, radius: f32, height: f32| {
        math::place([x, y, z], [radius, height, radius], 0.0, 0.0)
    };
    let stone = [0.0, layer::MARBLE, 2.0, 1.0];
    let mut all = vec![
        object(standing(0.0, 0.0, -0.4, 1.75, 0.2), WHITE, 0.35, stone),
        object(standing(0.0, 0.2, -0.4, 1.45, 0.36), WHITE, 0.35, stone),
    ];
    for [x, z] in column_places() {
        let tall = [0.0, layer::MARBLE, 0.5, 2.0];
        all.push(object(standing(x, 0.3, z, 0.42, 4.2), WHITE, 0.5, tall));
        all.push(object(standing(x, 4.4, z, 0.52, 0.12), WHITE, 0.5, MARBLE));
        all.push(object(standing(x, 0.22, z, 0.55, 0.14), WHITE, 0.5, MARBLE));
    }
    all
}

fn column_places() -> impl Iterator<Item = [f32; 2]> {
    (0..9).map(|i| {
        let (sin, cos) = math::sin_cos((i as f32 - 4.0) * 0.33);
        [9.0 * sin, 1.5 - 9.0 * cos]
    })
}

/// Plinths and capitals of the columns, and a brick block.
fn cubes() -> Vec<Instance> {
    let block = math::place([1.75, 0.5, -2.6], [0.8, 0.5, 0.5], -0.45, 0.0);
    let brick = [0.0, layer::BRICK, 0.75, 0.5];
    let mut all = vec![object(block, WHITE, 0.85, brick)];
    for [x, z] in column_places() {
        for (y, height) in [(0.11, 0.11), (4.64, 0.14)] {
            let turn = x * 0.11;
            let place = math::place([x, y, z], [0.62, height, 0.62], -turn, 0.0);
            all.push(object(place, WHITE, 0.5, MARBLE));
        }
    }
    all
}

fn floor() -> Instance {
    let place = math::place([0.0; 3], [1.0; 3], 0.0, 0.0);
    object(place, [0.9; 3], 0.18, [0.0, layer::CHECKER, 1.0, 1.0])
}

fn padded([x, y, z]: Vec3, w: f32) -> [f32; 4] {
    [x, y, z, w]
}

/// The view and its mirror image under the floor, `turn` (1 is all around) to the side.
pub(super) fn frames(aspect: f32, turn: f32) -> [Frame; 2] {
    let (sin, cos) = math::sin_cos(turn * TAU);
    let eye = [10.2 * sin, 2.75, 10.2 * cos];
    let basis = math::basis(eye, [0.0, 1.55, 0.0]);
    let mirrored = |[x, y, z]: Vec3| [x, -y, z];
    [frame(basis, eye, aspect, 0.0), frame(basis.map(mirrored), mirrored(eye), aspect, 1.0)]
}

fn frame([right, up, forward]: [Vec3; 3], eye: Vec3, aspect: f32, mirror: f32) -> Frame {
    let slope = 0.36;
    let sun = math::normalize([-0.80, 0.50, 0.10]);
    let light_eye = math::scale(sun, 24.0);
    let light = math::view(math::basis(light_eye, [0.0; 3]), light_eye);
    Frame {
        clip_from_world: math::multiply(
            &math::perspective(slope, aspect, 0.5, 120.0),
            &math::view([right, up, forward], eye),
        ),
        clip_from_light: math::multiply(&math::orthographic(11.0, 48.0), &light),
        eye: padded(eye, 1.0),
        right: padded(math::scale(right, slope * aspect), 0.0),
        up: padded(math::scale(up, slope), 0.0),
        forward: padded(forward, 0.0),
        sun: padded(sun, mirror),
    }
}
