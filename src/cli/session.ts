import { withGateway } from "./context.ts";
import { exitCodes } from "./exit-codes.ts";
import { type CliIo, type CommonOptions, type Output, relativeTime, table } from "./output.ts";

/** `sallyport session ls`: `{sessions: SessionView[]}`. */
export async function sessionList(options: CommonOptions, io: CliIo, output: Output): Promise<number> {
  const sessions = await withGateway(options, io, (client) => client.listSessions());
  const nowMs = Date.now();
  const rows = sessions.map((one) => [
    one.id,
    one.principal,
    one.resource,
    one.client,
    String(one.commands),
    String(one.denied),
    String(one.maskedCells),
    one.state === "live" ? `ends ${relativeTime(one.deadlineMs, nowMs)}` : "ended",
    one.task,
  ]);
  const header = ["ID", "PRINCIPAL", "RESOURCE", "CLIENT", "COMMANDS", "DENIED", "MASKED", "STATE", "TASK"];
  const empty = [
    "No one is connected. A session begins when somebody logs in with a grant's credential:",
    "  sallyport grant add --help",
  ];
  output.result({ sessions }, sessions.length === 0 ? empty : table(header, rows));
  return exitCodes.ok;
}
