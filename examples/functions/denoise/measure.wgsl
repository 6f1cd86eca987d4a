// How noisy the picture is, and a copy of it without lonely bright or dark pixels.

struct Settings { width: u32, height: u32, strength: f32 }

@group(0) @binding(0) var<uniform> settings: Settings;
@group(0) @binding(1) var<storage, read> photo: array<u32>;
@group(0) @binding(2) var<storage, read_write> calm: array<u32>;
// Sum over the pixels of how far each is from its neighbours, in units of 1/64.
@group(0) @binding(3) var<storage, read_write> noise: array<atomic<u32>, 4>;

fn pixel(x: i32, y: i32) -> vec3f {
  let at = clamp(vec2i(x, y), vec2i(0), vec2i(i32(settings.width) - 1, i32(settings.height) - 1));
  return unpack4x8unorm(photo[u32(at.y) * settings.width + u32(at.x)]).rgb;
}

fn brightness(colour: vec3f) -> f32 { return dot(colour, vec3f(0.299, 0.587, 0.114)); }

@compute @workgroup_size(8, 8)
fn measure(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= settings.width || id.y >= settings.height) { return; }
  let x = i32(id.x);
  let y = i32(id.y);
  let own = pixel(x, y);
  let middle = brightness(own);

  // Immerkaer (1996): this mask is blind to constant areas, slopes and straight edges, so what is left is noise.
  var mask = 4.0 * middle;
  // The second lowest and second highest of the eight neighbours: one outlier beside this one does not hide it.
  var low = vec2f(2.0);
  var high = vec2f(-1.0);
  for (var dy = -1; dy <= 1; dy += 1) {
    for (var dx = -1; dx <= 1; dx += 1) {
      if (dx == 0 && dy == 0) { continue; }
      let b = brightness(pixel(x + dx, y + dy));
      mask += select(-2.0, 1.0, dx * dy != 0) * b;
      low = select(select(low, vec2f(low.x, b), b < low.y), vec2f(b, low.x), b < low.x);
      high = select(select(high, vec2f(high.x, b), b > high.y), vec2f(b, high.x), b > high.x);
    }
  }
  atomicAdd(&noise[0], u32(min(abs(mask), 4.0) * 64.0));

  let target_brightness = clamp(middle, low.y, high.y);
  let scale = select(1.0, (target_brightness + 0.01) / (middle + 0.01), settings.strength > 0.0);
  calm[id.y * settings.width + id.x] = pack4x8unorm(vec4f(own * scale, 1.0));
}
