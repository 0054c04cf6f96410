// An Express app as the first chapter of a tutorial has it: no signal handler, PORT from the environment.
const express = require("express");

const app = express();
app.get("/", (_, reply) => reply.send(`express pid=${process.pid}\n`));
app.get("/slow", (_, reply) => setTimeout(() => reply.send(`express slow pid=${process.pid}\n`), 700));
app.get("/health", (_, reply) => reply.send("ok"));
app.listen(process.env.PORT, process.env.HOST, () => console.log(`express listens on ${process.env.PORT}`));
