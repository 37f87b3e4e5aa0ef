//! Owns the shapes in the scene: spheres, rings, knots, cylinders, boxes and the floor.

use super::math::{self, TAU, Vec3};

/// One corner of a triangle.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Vertex {
    pub position: Vec3,
    pub normal: Vec3,
    pub uv: [f32; 2],
}

/// Triangles, seen from outside counter-clockwise.
#[derive(Default)]
pub(super) struct Mesh {
    pub vertices: Vec<Vertex>,
    pub indices: Vec<u32>,
}

impl Mesh {
    /// A grid of `across` x `down` quads; `point` gives the vertex at `u` and `v` from 0 to 1.
    fn grid(&mut self, across: u32, down: u32, point: impl Fn(f32, f32) -> Vertex) {
        let first = self.vertices.len() as u32;
        for row in 0..=down {
            for column in 0..=across {
                let (u, v) = (column as f32 / across as f32, row as f32 / down as f32);
                self.vertices.push(point(u, v));
            }
        }
        for row in 0..down {
            for column in 0..across {
                let a = first + row * (across + 1) + column;
                let b = a + across + 1;
                self.indices.extend([a, b, a + 1, a + 1, b, b + 1]);
            }
        }
    }
}

/// Radius 1 around the origin.
pub(super) fn sphere() -> Mesh {
    let mut mesh = Mesh::default();
    mesh.grid(96, 48, |u, v| {
        let (sa, ca) = math::sin_cos(u * TAU);
        let (sb, cb) = math::sin_cos(v * TAU / 2.0);
        let normal = [sa * sb, cb, ca * sb];
        Vertex { position: normal, normal, uv: [u, v] }
    });
    mesh
}

/// A tube of radius `thick` around a closed curve.
fn tube(steps: u32, thick: f32, repeat: f32, curve: impl Fn(f32) -> Vec3) -> Mesh {
    let mut mesh = Mesh::default();
    mesh.grid(24, steps, |u, v| {
        let centre = curve(v);
        let along = math::normalize(math::sub(curve(v + 1e-3), curve(v - 1e-3)));
        // The curves wind around the y axis, so the way out from it is never along them.
        let out = math::normalize(math::cross([0.0, 1.0, 0.0], along));
        let up = math::cross(along, out);
        // Backwards around the tube, so that the triangles face outward.
        let (sin, cos) = math::sin_cos(-u * TAU);
        let normal = math::add(math::scale(out, cos), math::scale(up, sin));
        Vertex { position: math::add(centre, math::scale(normal, thick)), normal, uv: [u, v * repeat] }
    });
    mesh
}

/// A ring of radius 1 that lies flat.
pub(super) fn ring() -> Mesh {
    tube(96, 0.28, 6.0, |v| {
        let (sin, cos) = math::sin_cos(v * TAU);
        [cos, 0.0, sin]
    })
}

/// A knot that winds two times around the y axis and three times around itself.
pub(super) fn knot() -> Mesh {
    tube(480, 0.24, 16.0, |v| {
        let (s2, c2) = math::sin_cos(2.0 * v * TAU);
        let (s3, c3) = math::sin_cos(3.0 * v * TAU);
        let radius = 1.0 + 0.45 * c3;
        [radius * c2, 0.62 * s3, radius * s2]
    })
}

/// Radius 1, from y = 0 to 1, with both lids.
pub(super) fn cylinder() -> Mesh {
    let mut mesh = Mesh::default();
    mesh.grid(64, 1, |u, v| {
        let (sin, cos) = math::sin_cos(u * TAU);
        Vertex { position: [sin, 1.0 - v, cos], normal: [sin, 0.0, cos], uv: [u * 2.0, v] }
    });
    for (y, up) in [(1.0, 1.0), (0.0, -1.0)] {
        mesh.grid(64, 1, |u, v| {
            let (sin, cos) = math::sin_cos(u * up * TAU);
            Vertex {
                position: [sin * v, y, cos * v],
                normal: [0.0, up, 0.0],
                uv: [0.5 + sin * v * 0.5, 0.5 + cos * v * 0.5],
            }
        });
    }
    mesh
}

/// From -1 to 1 along every axis.
pub(super) fn cube() -> Mesh {
    let mut mesh = Mesh::default();
    for axis in 0..3 {
        for side in [1.0_f32, -1.0] {
            let mut normal = [0.0; 3];
            normal[axis] = side;
            let mut right = [0.0; 3];
            right[(axis + 1) % 3] = 1.0;
            let up = math::cross(normal, right);
            mesh.grid(1, 1, |u, v| {
                let across = math::scale(right, 2.0 * u - 1.0);
                let along = math::scale(up, 1.0 - 2.0 * v);
                Vertex { position: math::add(normal, math::add(across, along)), normal, uv: [u, v] }
            });
        }
    }
    mesh
}

/// The plane y = 0 out to 40 units.
pub(super) fn floor() -> Mesh {
    let mut mesh = Mesh::default();
    mesh.grid(1, 1, |u, v| {
        let (x, z) = (u * 80.0 - 40.0, v * 80.0 - 40.0);
        Vertex { position: [x, 0.0, z], normal: [0.0, 1.0, 0.0], uv: [x / 4.0, z / 4.0] }
    });
    mesh
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_triangle_faces_the_way_its_normals_point() {
        for mesh in [sphere(), ring(), knot(), cylinder(), cube(), floor()] {
            for corner in mesh.indices.chunks_exact(3) {
                let [a, b, c] = [0, 1, 2].map(|i| mesh.vertices[corner[i] as usize]);
                let edges = [b, c].map(|v| math::sub(v.position, a.position));
                let face = math::cross(edges[0], edges[1]);
                let normal = math::add(a.normal, math::add(b.normal, c.normal));
                // Triangles at the poles have no area.
                assert!(math::dot(face, normal) > -1e-7);
            }
        }
    }
}
