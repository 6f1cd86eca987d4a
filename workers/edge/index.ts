/** The public Worker of GPUX. */
export default {
  fetch(request: Request): Response {
    const { pathname } = new URL(request.url);
    if (pathname === "/healthz") return Response.json({ status: "ok" });
    return Response.json(
      { type: "about:blank", title: "Not Found", status: 404 },
      { status: 404, headers: { "content-type": "application/problem+json" } },
    );
  },
};
