// From summed light to a picture: mean, exposure, filmic curve, sRGB, one RGBA word per pixel.

struct View {
  position: vec3f, fov: f32,
  look_at: vec3f, aperture: f32,
  horizon: vec3f, focus: f32,
  zenith: vec3f, exposure: f32,
  width: u32, height: u32, bounces: u32, seed: u32,
  sample: u32, spheres: u32, planes: u32, boxes: u32,
}

@group(0) @binding(0) var<uniform> view: View;
@group(0) @binding(1) var<storage, read> light: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> pixels: array<u32>;

/// Narkowicz's fit of the ACES reference curve (2016).
fn filmic(x: vec3f) -> vec3f {
  return saturate((x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14));
}

fn srgb(x: vec3f) -> vec3f {
  return select(1.055 * pow(x, vec3f(1.0 / 2.4)) - 0.055, 12.92 * x, x <= vec3f(0.0031308));
}

@compute @workgroup_size(8, 8)
fn develop(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= view.width || at.y >= view.height) { return; }
  let pixel = at.y * view.width + at.x;
  let mean = light[pixel].rgb / max(light[pixel].a, 1.0);
  pixels[pixel] = pack4x8unorm(vec4f(srgb(filmic(mean * view.exposure)), 1.0));
}
