// A Fastify app without a signal handler.
const app = require("fastify")();
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

app.get("/", async () => `fastify pid=${process.pid}\n`);
app.get("/slow", async () => {
  await wait(700);
  return `fastify slow pid=${process.pid}\n`;
});
app.get("/health", async () => "ok");
app
  .listen({ port: Number(process.env.PORT), host: process.env.HOST ?? "127.0.0.1" })
  .then(() => console.log(`fastify listens on ${process.env.PORT}`));
