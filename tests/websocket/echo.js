// The WebSocket server that most of Node uses, as an echo that compresses every message (RFC 7692). It says its port.
// node echo.js [PORT [MILLISECONDS]]: how long a client's own Close is waited for.
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2] ?? 0),
  maxPayload: 32 << 20,
  closeTimeout: Number(process.argv[3] ?? 30000),
  perMessageDeflate: { threshold: 0 },
});
server.on("listening", () => console.log(server.address().port));
server.on("connection", (socket) => {
  socket.on("error", () => {});
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
