// Tiled multiplication: each workgroup makes a 16 x 16 tile of the product from tiles of a and b that it shares,
// so that every element is read from memory once per tile and not once per product element.
struct Shape { n: u32, k: u32, m: u32 }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> product: array<f32>;

const TILE = 16u;
var<workgroup> tileA: array<array<f32, TILE>, TILE>;
var<workgroup> tileB: array<array<f32, TILE>, TILE>;

@compute @workgroup_size(TILE, TILE)
fn multiply(@builtin(global_invocation_id) at: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = at.y;
  let column = at.x;
  var sum = 0.0;
  for (var first = 0u; first < shape.k; first += TILE) {
    let across = first + local.x;
    let down = first + local.y;
    // Outside the matrices a tile holds zeros, which add nothing.
    tileA[local.y][local.x] = 0.0;
    tileB[local.y][local.x] = 0.0;
    if (row < shape.n && across < shape.k) { tileA[local.y][local.x] = a[row * shape.k + across]; }
    if (down < shape.k && column < shape.m) { tileB[local.y][local.x] = b[down * shape.m + column]; }
    workgroupBarrier();
    for (var i = 0u; i < TILE; i += 1u) {
      sum += tileA[local.y][i] * tileB[i][local.x];
    }
    workgroupBarrier();
  }
  if (row < shape.n && column < shape.m) { product[row * shape.m + column] = sum; }
}
