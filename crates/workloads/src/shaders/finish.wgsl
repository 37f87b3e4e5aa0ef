// Makes a picture of linear colours: exposure, a filmic curve, and corners a little darker.

@group(0) @binding(0) var colours: texture_2d<f32>;

@vertex
fn cover(@builtin(vertex_index) index: u32) -> @builtin(position) vec4<f32> {
    return vec4(f32(index % 2u) * 4.0 - 1.0, f32(index / 2u) * 4.0 - 1.0, 0.0, 1.0);
}

// Narkowicz's fit of the ACES curve.
fn filmic(x: vec3<f32>) -> vec3<f32> {
    return clamp(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), vec3(0.0), vec3(1.0));
}

@fragment
fn finish(@builtin(position) at: vec4<f32>) -> @location(0) vec4<f32> {
    let place = at.xy / vec2<f32>(textureDimensions(colours)) - 0.5;
    let vignette = 1.0 - 0.55 * dot(place, place);
    let colour = textureLoad(colours, vec2<i32>(at.xy), 0).rgb;
    return vec4(filmic(colour * 0.86 * vignette), 1.0);
}
