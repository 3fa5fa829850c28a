export interface NodePackage {
  readonly name: string;
  readonly version: string;
  readonly integrity: string;
}
export declare const oldestNode: readonly [number, number];
export declare const nodePackages: Readonly<Record<string, NodePackage>>;
export declare function isNewEnough(version: string): boolean;
export declare function ensureNode(root: string): Promise<string>;
export declare function fetchNode(root: string, wanted: NodePackage, directory: string): Promise<void>;
export declare function verifyIntegrity(path: string, wanted: NodePackage): Promise<void>;
export declare function extract(tarball: string, member: string, target: string): Promise<void>;
