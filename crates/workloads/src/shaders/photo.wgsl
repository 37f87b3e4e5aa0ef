// Non-local means: each pixel becomes the mean of the pixels around it, each weighted by how alike
// their surroundings are. Edges survive because no patch across an edge looks like a patch on it.
//
// An invocation owns four pixels side by side: their 5x5 patches overlap, so the squared differences
// are summed by column once and the columns are shared.

const RUN = 4;         // pixels of one invocation; the vectors below are this wide
const WIDTH = 32;      // pixels of one workgroup: 8 invocations across, 16 down
const HEIGHT = 16;
const SEARCH = 6;      // candidates lie up to this far away
const PATCH = 2;       // patches are compared over 5x5 pixels
const HALO = SEARCH + PATCH;
const ACROSS = WIDTH + 2 * HALO;
const DOWN = HEIGHT + 2 * HALO;
const ROWS = 2 * PATCH + 1;

struct Settings {
    noise: f32,    // variance of the noise in luma
    falloff: f32,  // one over the squared filter strength
}

// Eight neighbouring values.
struct Strip {
    left: vec4<f32>,
    right: vec4<f32>,
}

@group(0) @binding(0) var<uniform> settings: Settings;
@group(0) @binding(1) var source: texture_2d<f32>;
@group(0) @binding(2) var target_picture: texture_storage_2d<rgba8unorm, write>;

var<workgroup> luma: array<f32, ACROSS * DOWN>;
var<workgroup> colour: array<u32, ACROSS * DOWN>;

fn load_tile(corner: vec2<i32>, lane: i32) {
    let last = vec2<i32>(textureDimensions(source)) - 1;
    for (var i = lane; i < ACROSS * DOWN; i += WIDTH * HEIGHT / RUN) {
        let at = corner + vec2(i % ACROSS, i / ACROSS);
        let texel = textureLoad(source, clamp(at, vec2(0), last), 0);
        luma[i] = dot(texel.rgb, vec3(0.299, 0.587, 0.114));
        colour[i] = pack4x8unorm(texel);
    }
}

fn strip(at: i32) -> Strip {
    return Strip(
        vec4(luma[at], luma[at + 1], luma[at + 2], luma[at + 3]),
        vec4(luma[at + 4], luma[at + 5], luma[at + 6], luma[at + 7]),
    );
}

// For each of the four pixels, the sum of the five columns of its patch.
fn five_columns(c: Strip) -> vec4<f32> {
    let middle = c.left.w + c.right.x;
    let inner = vec4(c.left.y + c.left.z, c.left.z, c.right.y, c.right.y + c.right.z);
    let outer = vec4(c.left.x, c.left.y + c.right.y, c.left.z + c.right.z, c.right.w);
    return middle + inner + outer;
}

@compute @workgroup_size(WIDTH / RUN, HEIGHT)
fn denoise(
    @builtin(workgroup_id) tile: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let origin = vec2<i32>(tile.xy) * vec2(WIDTH, HEIGHT);
    load_tile(origin - HALO, i32(lane));
    workgroupBarrier();

    let place = vec2<i32>(local.xy) * vec2(RUN, 1);
    let here = (place.y + HALO) * ACROSS + place.x + HALO;
    let patch_corner = here - PATCH * ACROSS - PATCH;
    var own: array<Strip, ROWS>;
    for (var row = 0; row < ROWS; row++) {
        own[row] = strip(patch_corner + row * ACROSS);
    }

    var total: array<vec3<f32>, RUN>;
    var weights = vec4(0.0);
    for (var y = -SEARCH; y <= SEARCH; y++) {
        for (var x = -SEARCH; x <= SEARCH; x++) {
            let step = y * ACROSS + x;
            var columns = Strip(vec4(0.0), vec4(0.0));
            for (var row = 0; row < ROWS; row++) {
                let other = strip(patch_corner + step + row * ACROSS);
                let left = own[row].left - other.left;
                let right = own[row].right - other.right;
                columns.left += left * left;
                columns.right += right * right;
            }
            let apart = five_columns(columns) / f32(ROWS * ROWS);
            // What differs by no more than the noise would make it differ counts in full.
            let excess = max(apart - 2.0 * settings.noise, vec4(0.0));
            let weight = exp(-excess * settings.falloff);
            for (var i = 0; i < RUN; i++) {
                total[i] += weight[i] * unpack4x8unorm(colour[here + step + i]).rgb;
            }
            weights += weight;
        }
    }

    let size = vec2<i32>(textureDimensions(source));
    for (var i = 0; i < RUN; i++) {
        let at = origin + place + vec2(i, 0);
        if all(at < size) {
            let alpha = unpack4x8unorm(colour[here + i]).a;
            textureStore(target_picture, at, vec4(total[i] / weights[i], alpha));
        }
    }
}
