//! Owns the little vector algebra of the scene. Sine and cosine are computed here, with nothing but basic
//! operations: a guest and its host may have different C libraries, and the pictures must not differ.

pub(super) type Vec3 = [f32; 3];

/// Columns.
pub(super) type Mat4 = [[f32; 4]; 4];

pub(super) const TAU: f32 = std::f32::consts::TAU;

/// Sine and cosine by their series, reduced to a quarter turn.
pub(super) fn sin_cos(angle: f32) -> (f32, f32) {
    let quarter = std::f64::consts::FRAC_PI_2;
    let turns = (f64::from(angle) / quarter).round();
    let x = f64::from(angle) - turns * quarter;
    let x2 = x * x;
    let sin = x * (1.0 - x2 / 6.0 * (1.0 - x2 / 20.0 * (1.0 - x2 / 42.0 * (1.0 - x2 / 72.0))));
    let cos = 1.0 - x2 / 2.0 * (1.0 - x2 / 12.0 * (1.0 - x2 / 30.0 * (1.0 - x2 / 56.0)));
    let (sin, cos) = match (turns as i64).rem_euclid(4) {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    };
    (sin as f32, cos as f32)
}

pub(super) fn add(a: Vec3, b: Vec3) -> Vec3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub(super) fn scale(a: Vec3, by: f32) -> Vec3 {
    a.map(|x| x * by)
}

pub(super) fn sub(a: Vec3, b: Vec3) -> Vec3 {
    add(a, scale(b, -1.0))
}

pub(super) fn dot(a: Vec3, b: Vec3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: Vec3, b: Vec3) -> Vec3 {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

pub(super) fn normalize(a: Vec3) -> Vec3 {
    scale(a, 1.0 / dot(a, a).sqrt())
}

/// `a * b`.
pub(super) fn multiply(a: &Mat4, b: &Mat4) -> Mat4 {
    b.map(|column| std::array::from_fn(|row| (0..4).map(|k| a[k][row] * column[k]).sum()))
}

/// Right, up and forward of someone at `eye` who looks at `target`.
pub(super) fn basis(eye: Vec3, target: Vec3) -> [Vec3; 3] {
    let forward = normalize(sub(target, eye));
    let right = normalize(cross(forward, [0.0, 1.0, 0.0]));
    [right, cross(right, forward), forward]
}

/// World to view space; the view looks along -z.
pub(super) fn view([right, up, forward]: [Vec3; 3], eye: Vec3) -> Mat4 {
    let back = scale(forward, -1.0);
    let column = |i: usize| [right[i], up[i], back[i], 0.0];
    let shift = [right, up, back].map(|axis| -dot(axis, eye));
    [column(0), column(1), column(2), [shift[0], shift[1], shift[2], 1.0]]
}

/// `slope` is the tangent of half the vertical angle of view.
pub(super) fn perspective(slope: f32, aspect: f32, near: f32, far: f32) -> Mat4 {
    let depth = far / (near - far);
    [
        [1.0 / (slope * aspect), 0.0, 0.0, 0.0],
        [0.0, 1.0 / slope, 0.0, 0.0],
        [0.0, 0.0, depth, -1.0],
        [0.0, 0.0, near * depth, 0.0],
    ]
}

/// A box `2 * half` wide and high that reaches from 0 to `far`.
pub(super) fn orthographic(half: f32, far: f32) -> Mat4 {
    [
        [1.0 / half, 0.0, 0.0, 0.0],
        [0.0, 1.0 / half, 0.0, 0.0],
        [0.0, 0.0, -1.0 / far, 0.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
}

/// Scaled, then turned about y, then tilted about x, then moved.
pub(super) fn place(at: Vec3, size: Vec3, turn: f32, tilt: f32) -> Mat4 {
    let (st, ct) = sin_cos(turn);
    let (sx, cx) = sin_cos(tilt);
    let turned = [[ct, 0.0, -st], [0.0, 1.0, 0.0], [st, 0.0, ct]];
    let tilted = turned.map(|[x, y, z]| [x, y * cx - z * sx, y * sx + z * cx]);
    let column = |i: usize| {
        let [x, y, z] = scale(tilted[i], size[i]);
        [x, y, z, 0.0]
    };
    [column(0), column(1), column(2), [at[0], at[1], at[2], 1.0]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sine_and_cosine_are_right_all_around() {
        for step in -100..100 {
            let angle = step as f32 * 0.1;
            let (sin, cos) = sin_cos(angle);
            assert!((sin - angle.sin()).abs() < 1e-6, "{angle}");
            assert!((cos - angle.cos()).abs() < 1e-6, "{angle}");
        }
    }
}
