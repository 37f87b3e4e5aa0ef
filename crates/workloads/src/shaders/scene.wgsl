// The scene: a shadow map, a mirrored view for the polished floor, and the view itself. Colours are
// linear and may exceed 1; finish.wgsl makes a picture of them.

struct Frame {
    clip_from_world: mat4x4<f32>,
    clip_from_light: mat4x4<f32>,
    eye: vec4<f32>,
    right: vec4<f32>,   // scaled to half the picture's width at distance 1
    up: vec4<f32>,      // scaled to half the picture's height at distance 1
    forward: vec4<f32>,
    sun: vec4<f32>,     // w: 1 in the mirrored view
}

@group(0) @binding(0) var<uniform> frame: Frame;
@group(1) @binding(0) var materials: texture_2d_array<f32>;
@group(1) @binding(1) var material_sampler: sampler;
@group(1) @binding(2) var shadow_map: texture_depth_2d;
@group(1) @binding(3) var shadow_sampler: sampler_comparison;
@group(1) @binding(4) var level_sampler: sampler; // for levels chosen here
@group(2) @binding(0) var reflection: texture_2d<f32>;
@group(2) @binding(1) var reflection_sampler: sampler;

const SUN_COLOUR = vec3(8.4, 6.2, 4.1);
const PI = 3.14159265;
const CHECKER = 1;

struct Corner {
    @location(0) position: vec3<f32>,
    @location(1) normal: vec3<f32>,
    @location(2) uv: vec2<f32>,
    @location(3) world0: vec4<f32>,
    @location(4) world1: vec4<f32>,
    @location(5) world2: vec4<f32>,
    @location(6) world3: vec4<f32>,
    @location(7) colour: vec4<f32>,   // w: roughness
    @location(8) material: vec4<f32>, // metalness, layer, repeats across, repeats down
}

struct Point {
    @builtin(position) clip: vec4<f32>,
    @location(0) world: vec3<f32>,
    @location(1) normal: vec3<f32>,
    @location(2) uv: vec2<f32>,
    @location(3) @interpolate(flat) colour: vec4<f32>,
    @location(4) @interpolate(flat) material: vec2<f32>,
}

fn world_position(corner: Corner) -> vec4<f32> {
    let world = mat4x4(corner.world0, corner.world1, corner.world2, corner.world3);
    return world * vec4(corner.position, 1.0);
}

@vertex
fn place_in_shadow(corner: Corner) -> @builtin(position) vec4<f32> {
    return frame.clip_from_light * world_position(corner);
}

@vertex
fn place(corner: Corner) -> Point {
    let world = world_position(corner);
    // Scaled axes stay at right angles, so dividing twice by their length undoes the scale for normals.
    let normal = corner.world0.xyz * corner.normal.x / dot(corner.world0, corner.world0)
        + corner.world1.xyz * corner.normal.y / dot(corner.world1, corner.world1)
        + corner.world2.xyz * corner.normal.z / dot(corner.world2, corner.world2);
    var point: Point;
    point.clip = frame.clip_from_world * world;
    point.world = world.xyz;
    point.normal = normal;
    point.uv = corner.uv * corner.material.zw;
    point.colour = corner.colour;
    point.material = corner.material.xy;
    return point;
}

// Evening sky, with the sun in it.
fn sky(direction: vec3<f32>) -> vec3<f32> {
    let height = max(direction.y, 0.0);
    let toward = dot(direction, frame.sun.xyz);
    let low = mix(vec3(0.62, 0.50, 0.52), vec3(1.45, 0.78, 0.36), pow(toward * 0.5 + 0.5, 5.0));
    let high = vec3(0.07, 0.17, 0.44);
    let colour = mix(low, high, 1.0 - exp(-3.6 * height));
    return colour + SUN_COLOUR * (0.08 * pow(max(toward, 0.0), 24.0) + 3.0 * pow(max(toward, 0.0), 900.0));
}

fn light_reaching(world: vec3<f32>, normal: vec3<f32>) -> f32 {
    let moved = world + normal * 0.03;
    let clip = frame.clip_from_light * vec4(moved, 1.0);
    let at = clip.xy * vec2(0.5, -0.5) + 0.5;
    let texel = 1.0 / f32(textureDimensions(shadow_map).x);
    var sum = 0.0;
    for (var y = -2; y <= 2; y++) {
        for (var x = -2; x <= 2; x++) {
            let tap = at + vec2(f32(x), f32(y)) * texel * 1.5;
            sum += textureSampleCompareLevel(shadow_map, shadow_sampler, tap, clip.z);
        }
    }
    let outside = any(at < vec2(0.0)) || any(at > vec2(1.0));
    return select(sum / 25.0, 1.0, outside);
}

struct Surface {
    colour: vec3<f32>,
    normal: vec3<f32>,
    toward_eye: vec3<f32>,
    roughness: f32,
    metalness: f32,
}

fn fresnel(base: vec3<f32>, cosine: f32) -> vec3<f32> {
    return base + (1.0 - base) * pow(1.0 - clamp(cosine, 0.0, 1.0), 5.0);
}

// GGX with Smith's shadowing in Schlick's form.
fn sunlight(s: Surface, base: vec3<f32>) -> vec3<f32> {
    let sun = frame.sun.xyz;
    let half_way = normalize(sun + s.toward_eye);
    let n_l = max(dot(s.normal, sun), 0.0);
    let n_v = max(dot(s.normal, s.toward_eye), 1e-3);
    let n_h = max(dot(s.normal, half_way), 0.0);
    let alpha = max(s.roughness * s.roughness, 0.004);
    let spread = n_h * n_h * (alpha * alpha - 1.0) + 1.0;
    let distribution = alpha * alpha / (PI * spread * spread);
    let k = alpha / 2.0;
    let visible = 0.25 / ((n_l * (1.0 - k) + k) * (n_v * (1.0 - k) + k));
    let mirror = fresnel(base, dot(half_way, s.toward_eye));
    let diffuse = (1.0 - mirror) * (1.0 - s.metalness) * s.colour / PI;
    return (diffuse + min(mirror * distribution * visible, vec3(6.0))) * n_l * SUN_COLOUR;
}

// What the sky and the ground give; `mirrored` is what is seen in the surface.
fn ambient(s: Surface, base: vec3<f32>, mirrored: vec3<f32>) -> vec3<f32> {
    let from_sky = vec3(0.17, 0.22, 0.34);
    let from_ground = vec3(0.15, 0.11, 0.09);
    let around = mix(from_ground, from_sky, s.normal.y * 0.5 + 0.5);
    let mirror = fresnel(base, dot(s.normal, s.toward_eye)) * (1.0 - s.roughness * 0.7);
    return (1.0 - mirror) * (1.0 - s.metalness) * s.colour * around + mirror * mirrored;
}

fn surface(point: Point) -> Surface {
    let texel = textureSample(materials, material_sampler, point.uv, i32(point.material.y + 0.5));
    return Surface(
        point.colour.rgb * texel.rgb,
        normalize(point.normal),
        normalize(frame.eye.xyz - point.world),
        point.colour.w,
        point.material.x,
    );
}

fn fogged(colour: vec3<f32>, world: vec3<f32>) -> vec3<f32> {
    let way = world - frame.eye.xyz;
    let far = max(length(way) - 9.0, 0.0);
    let level = normalize(vec3(way.x, 0.02, way.z));
    return mix(sky(level), colour, exp(-0.0011 * far * far));
}

fn lit(s: Surface, world: vec3<f32>, mirrored: vec3<f32>) -> vec4<f32> {
    let base = mix(vec3(0.04), s.colour, s.metalness);
    let direct = sunlight(s, base) * light_reaching(world, s.normal);
    return vec4(fogged(direct + ambient(s, base, mirrored), world), 1.0);
}

// The floor as it is seen along `way` from `place`, without what stands on it.
fn floor_seen(place: vec3<f32>, way: vec3<f32>, roughness: f32) -> vec3<f32> {
    let far = max(place.y, 0.0) / max(-way.y, 0.02);
    let at = (place + way * far).xz / 4.0;
    let spread = max(length(dpdx(at)), length(dpdy(at))) + roughness * 0.08 * far;
    let blur = log2(max(spread * f32(textureDimensions(materials).x), 1.0));
    let stone = textureSampleLevel(materials, level_sampler, at, CHECKER, blur).rgb;
    let dimmed = stone * (0.45 + 0.3 * smoothstep(0.0, 2.0, place.y));
    let level = normalize(vec3(way.x, 0.02, way.z));
    return mix(sky(level), dimmed, exp(-0.02 * far));
}

@fragment
fn shade(point: Point) -> @location(0) vec4<f32> {
    let s = surface(point);
    if frame.sun.w > 0.5 && point.world.y < 0.0 {
        discard;
    }
    let way = reflect(-s.toward_eye, s.normal);
    let blur = 0.02 + s.roughness * 0.6;
    let above = smoothstep(-blur, blur, way.y);
    let mirrored = mix(floor_seen(point.world, way, s.roughness), sky(way), above);
    return lit(s, point.world, mirrored);
}

@fragment
fn shade_floor(point: Point) -> @location(0) vec4<f32> {
    let s = surface(point);
    let size = vec2<f32>(textureDimensions(reflection));
    let from_eye = point.world - frame.eye.xyz;
    let depth = dot(from_eye, frame.forward.xyz);
    let across = dot(from_eye, frame.right.xyz) / dot(frame.right.xyz, frame.right.xyz) / depth;
    let along = dot(from_eye, frame.up.xyz) / dot(frame.up.xyz, frame.up.xyz) / depth;
    let at = vec2(across, -along) * 0.5 + 0.5;
    var mirrored = vec3(0.0);
    for (var y = -1; y <= 1; y++) {
        for (var x = -1; x <= 1; x++) {
            let tap = at + vec2(f32(x), f32(y)) * 1.1 / size;
            let seen = textureSampleLevel(reflection, reflection_sampler, tap, 0.0).rgb;
            mirrored += min(seen, vec3(1.6)) / 9.0;
        }
    }
    // A polish that shows more than bare stone would.
    let gloss = 1.25 * mirrored;
    return lit(s, point.world, gloss);
}

struct Ray {
    @builtin(position) clip: vec4<f32>,
    @location(0) direction: vec3<f32>,
}

// One triangle over the whole picture, behind everything.
@vertex
fn place_sky(@builtin(vertex_index) index: u32) -> Ray {
    let at = vec2(f32(index % 2u) * 4.0 - 1.0, f32(index / 2u) * 4.0 - 1.0);
    let direction = frame.forward.xyz + at.x * frame.right.xyz + at.y * frame.up.xyz;
    return Ray(vec4(at, 1.0, 1.0), direction);
}

@fragment
fn shade_sky(ray: Ray) -> @location(0) vec4<f32> {
    return vec4(sky(normalize(ray.direction)), 1.0);
}
