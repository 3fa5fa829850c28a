/**
 * Integration: durable entries become part of the tree. Normal work and recovery go through the same `publish`.
 * Nothing that a published checkpoint covers is ever written again; the checkpoint is the commit point.
 */
import { dirname, join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";

import { signCheckpoint } from "#tlog/checkpoint.ts";
import type { Checkpoint } from "#tlog/checkpoint.ts";
import type { NoteSigner } from "#tlog/note.ts";
import { formatTilePath, hashesAtLevel, tileLevels, tileWidth } from "#tlog/tile.ts";
import type { TileName } from "#tlog/tile.ts";

import type { TreeEdge, TreeFile } from "./edge.ts";
import { writeAll, writeWhole } from "./files.ts";
import type { Files, WritableFile } from "./files.ts";
import { encodePayloadHeader } from "./frame.ts";
import type { Pending } from "./frame.ts";
import { checkpointDraftFile, checkpointFile, payloadDirectory, payloadFileName } from "./layout.ts";

/** A payload file is closed once it is this long; the next entry with a payload begins a new one. */
const payloadFileBytesMax = 64 * 1024 * 1024;
/** Files of the tree that are written and synced side by side: the disk then commits several at a time. */
const filesAtOnce = 8;
/** Entries hashed before other work gets its turn: about a millisecond. */
const entriesPerTurn = 256;

/** The payload file that is being written, and how much of it the tree covers. */
export interface PayloadPosition {
  readonly firstIndex: number;
  readonly bytes: number;
}

export interface PublisherParts {
  readonly directory: string;
  readonly files: Files;
  readonly signer: NoteSigner;
  readonly edge: TreeEdge;
  readonly payloads: PayloadPosition | null;
  /** Notes a checkpoint outside the log's directory, durably, before it is published in it. */
  readonly note: (checkpoint: Checkpoint) => Promise<void>;
}

/** Owns the tree, the payload files and the checkpoint. One `publish` at a time. */
export class Publisher {
  readonly #parts: PublisherParts;
  #payloads: PayloadPosition | null;
  #checkpoint: Checkpoint;
  /** Directories in which names have changed since they were synced. */
  readonly #unsynced = new Set<string>();
  readonly #known = new Set<string>();

  constructor(parts: PublisherParts) {
    this.#parts = parts;
    this.#payloads = parts.payloads;
    this.#checkpoint = this.#head();
  }

  /** The newest checkpoint. */
  get checkpoint(): Checkpoint {
    return this.#checkpoint;
  }

  #head(): Checkpoint {
    const { edge, signer } = this.#parts;
    return { origin: signer.name, size: edge.size, root: edge.root(), extensions: [] };
  }

  /**
   * Puts the next entries into the tree and signs a checkpoint over it.
   * @throws Error when a write or a sync failed: the publisher must not be used again, and recovery starts from the
   * last checkpoint.
   */
  async publish(entries: readonly Pending[]): Promise<Checkpoint> {
    const { edge } = this.#parts;
    const before = edge.size;
    await this.#writePayloads(entries);
    // A crash here leaves payload frames past the ones that the checkpoint covers: the next start cuts them off.
    let complete: TreeFile[] = [];
    for (const [position, pending] of entries.entries()) {
      complete.push(...edge.append(pending.entry));
      if (complete.length >= filesAtOnce) {
        await this.#writeTreeFiles(complete);
        complete = [];
      }
      if (position % entriesPerTurn === entriesPerTurn - 1) {
        await nextTurn();
      }
    }
    await this.#writeTreeFiles([...complete, ...edge.partialFiles()]);
    // A crash here leaves tiles and bundles that no checkpoint covers: the next start writes the same ones again.
    await this.#syncDirectories();
    // A crash here leaves the same files, now with durable names.
    const checkpoint = this.#head();
    await this.writeCheckpoint(checkpoint);
    this.#checkpoint = checkpoint;
    await this.#removePartials(before);
    return checkpoint;
  }

  /** Signs a checkpoint and makes it the log's own. This is where entries become part of the published log. */
  async writeCheckpoint(checkpoint: Checkpoint): Promise<void> {
    const { directory, files, signer } = this.#parts;
    const signed = Buffer.from(signCheckpoint(checkpoint, [signer]), "utf8");
    const draft = join(directory, checkpointDraftFile);
    await writeWhole(files, draft, "replace", [signed]);
    // A crash here leaves the old checkpoint, and a draft that nobody reads.
    await this.#parts.note(checkpoint);
    // A crash here leaves a checkpoint that is older than the one that was noted. That can be made good: a segment goes only
    // after its checkpoint has taken its place, so the segments hold all entries in between; the next start makes the tree of
    // them, compares its root with the noted one, and publishes it. The other order could not: whoever had seen the new
    // checkpoint could be shown the old directory again, and nothing would say that it is old.
    await files.rename(draft, join(directory, checkpointFile));
    // A crash here leaves either the old or the new checkpoint, each whole, and the files of both.
    await files.syncDirectory(directory);
    // A crash here leaves the new checkpoint, and segments whose entries it covers: the next start removes them.
  }

  async #writePayloads(entries: readonly Pending[]): Promise<void> {
    let file: WritableFile | null = null;
    try {
      for (const { index, payload } of entries) {
        if (payload === null) {
          continue;
        }
        if (this.#payloads === null || this.#payloads.bytes >= payloadFileBytesMax) {
          await file?.sync();
          await file?.close();
          file = null;
          this.#payloads = { firstIndex: index, bytes: 0 };
        }
        file ??= await this.#openPayloads(this.#payloads);
        const header = encodePayloadHeader(index, payload);
        writeAll(file, header);
        writeAll(file, payload);
        const bytes = this.#payloads.bytes + header.length + payload.length;
        this.#payloads = { firstIndex: this.#payloads.firstIndex, bytes };
      }
      await file?.sync();
    } finally {
      await file?.close();
    }
  }

  async #openPayloads(position: PayloadPosition): Promise<WritableFile> {
    const { directory, files } = this.#parts;
    const path = join(directory, payloadDirectory, payloadFileName(position.firstIndex));
    await this.#makeDirectories(dirname(path));
    if (position.bytes > 0) {
      return files.open(path, "append");
    }
    this.#unsynced.add(dirname(path));
    return files.open(path, "replace");
  }

  async #writeTreeFiles(treeFiles: readonly TreeFile[]): Promise<void> {
    const { directory, files } = this.#parts;
    const targets = treeFiles.map(({ name, bytes }) => ({ path: join(directory, formatTilePath(name)), bytes }));
    for (const { path } of targets) {
      await this.#makeDirectories(dirname(path));
      this.#unsynced.add(dirname(path));
    }
    await Promise.all(targets.map(({ path, bytes }) => writeWhole(files, path, "replace", [bytes])));
  }

  /** Makes a directory and those above it, up to the log's own, and remembers whose names changed. */
  async #makeDirectories(path: string): Promise<void> {
    if (path === this.#parts.directory || this.#known.has(path)) {
      return;
    }
    await this.#makeDirectories(dirname(path));
    await this.#parts.files.makeDirectory(path);
    // Even when it was there: a killed process may have made it without a sync.
    this.#unsynced.add(dirname(path));
    this.#known.add(path);
  }

  async #syncDirectories(): Promise<void> {
    for (const path of this.#unsynced) {
      await this.#parts.files.syncDirectory(path);
    }
    this.#unsynced.clear();
  }

  /**
   * Removes the partial tiles and bundles that this checkpoint replaced, and any that a crashed publication left.
   * A crash in here leaves some of them: each is the start of the file that replaced it, and goes the next time.
   */
  async #removePartials(before: number): Promise<void> {
    const { edge } = this.#parts;
    await this.#removePartialsOfLevel("entries", 0, before);
    for (let level = 0; level < tileLevels(edge.size); level++) {
      await this.#removePartialsOfLevel(level, level, before);
    }
  }

  async #removePartialsOfLevel(level: TileName["level"], treeLevel: number, before: number): Promise<void> {
    const { directory, files, edge } = this.#parts;
    const first = Math.floor(hashesAtLevel(treeLevel, before) / tileWidth);
    const hashes = hashesAtLevel(treeLevel, edge.size);
    const last = Math.floor(hashes / tileWidth);
    for (let index = first; index <= last; index++) {
      const partials = dirname(join(directory, formatTilePath({ level, index, width: 1 })));
      const kept = index === last ? String(hashes % tileWidth) : null;
      for (const width of await files.list(partials)) {
        if (width !== kept) {
          await files.remove(join(partials, width));
        }
      }
      if (index < last) {
        await files.removeDirectory(partials);
        this.#known.delete(partials);
      }
    }
  }
}
