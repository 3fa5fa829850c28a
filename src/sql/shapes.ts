/**
 * The allow-list of the parse tree: every kind of node, and every field of it, that the analysis knows the meaning of.
 * Anything else that is set in a statement denies it, so that a new version of the grammar brings denials and no holes.
 */
import { limits } from "#domain/limits.ts";
import { refuseDepth } from "./parse.ts";
import { refuse, refuseUnsupported } from "./refused.ts";

/** `value`: text, number or flag; `node`: a tagged node; `nodes`: a list of them; otherwise the kind of an untagged node. */
type FieldShape = string;

/** Written `field=` for a value, `field?` for a node, `field*` for a list of nodes, `field:Kind` for an untagged node. */
function shape(text: string): ReadonlyMap<string, FieldShape> {
  const fields = new Map<string, FieldShape>();
  for (const part of text.split(" ").filter((word) => word !== "")) {
    const [, name, mark, kind] = /^([A-Za-z_]+)([=?*:])([A-Za-z_]*)$/.exec(part) ?? [];
    if (name !== undefined) {
      fields.set(name, mark === "=" ? "value" : mark === "?" ? "node" : mark === "*" ? "nodes" : (kind ?? ""));
    }
  }
  return fields;
}

const shapes: ReadonlyMap<string, ReadonlyMap<string, FieldShape>> = new Map(
  Object.entries({
    // Statements.
    SelectStmt:
      "distinctClause* targetList* fromClause* whereClause? groupClause* groupDistinct= havingClause? windowClause* valuesLists* sortClause* limitOffset? limitCount? limitOption= lockingClause* withClause:WithClause op= all= larg:SelectStmt rarg:SelectStmt",
    InsertStmt:
      "relation:RangeVar cols* selectStmt? onConflictClause:OnConflictClause returningClause:ReturningClause withClause:WithClause override=",
    UpdateStmt:
      "relation:RangeVar targetList* whereClause? fromClause* returningClause:ReturningClause withClause:WithClause",
    DeleteStmt: "relation:RangeVar usingClause* whereClause? returningClause:ReturningClause withClause:WithClause",
    ExplainStmt: "query? options*",
    TransactionStmt: "kind= options* savepoint_name= chain= location=",
    VariableSetStmt: "kind= name= args* is_local= jumble_args= location=",
    VariableShowStmt: "name=",
    PrepareStmt: "name= argtypes* query?",
    ExecuteStmt: "name= params*",
    DeallocateStmt: "name= isall= location=",
    // Clauses.
    WithClause: "ctes* recursive= location=",
    CommonTableExpr: "ctename= aliascolnames* ctematerialized= ctequery? location=",
    OnConflictClause: "action= infer:InferClause targetList* whereClause? location=",
    InferClause: "indexElems* whereClause? conname= location=",
    IndexElem: "name= expr? ordering= nulls_ordering=",
    ReturningClause: "exprs*",
    LockingClause: "lockedRels* strength= waitPolicy=",
    WindowDef: "name= refname= partitionClause* orderClause* frameOptions= startOffset? endOffset? location=",
    SortBy: "node? sortby_dir= sortby_nulls= useOp* location=",
    GroupingSet: "kind= content* location=",
    DefElem: "defname= arg? defaction= location=",
    ResTarget: "name= indirection* val? location=",
    MultiAssignRef: "source? colno= ncolumns=",
    SetToDefault: "location=",
    // FROM.
    RangeVar: "schemaname= relname= inh= relpersistence= alias:Alias location=",
    Alias: "aliasname= colnames*",
    JoinExpr: "jointype= isNatural= larg? rarg? usingClause* join_using_alias:Alias quals? alias:Alias",
    RangeSubselect: "lateral= subquery? alias:Alias",
    RangeFunction: "lateral= ordinality= is_rowsfrom= functions* alias:Alias coldeflist*",
    RangeTableSample: "relation? method* args* repeatable? location=",
    ColumnDef: "colname= typeName:TypeName is_local= collClause:CollateClause location=",
    // Expressions.
    ColumnRef: "fields* location=",
    ParamRef: "number= location=",
    A_Const: "ival:Integer fval:Float boolval:Boolean sval:String bsval:BitString isnull= location=",
    A_Expr: "kind= name* lexpr? rexpr? rexpr_list_start= rexpr_list_end= location=",
    A_Indirection: "arg? indirection*",
    A_Indices: "is_slice= lidx? uidx?",
    A_ArrayExpr: "elements* list_start= list_end= location=",
    A_Star: "",
    BoolExpr: "boolop= args* location=",
    BooleanTest: "arg? booltesttype= location=",
    NullTest: "arg? nulltesttype= location=",
    CaseExpr: "arg? args* defresult? location=",
    CaseWhen: "expr? result? location=",
    CoalesceExpr: "args* location=",
    CollateClause: "arg? collname* location=",
    FuncCall:
      "funcname* args* agg_order* agg_filter? over:WindowDef agg_within_group= agg_star= agg_distinct= func_variadic= funcformat= location=",
    NamedArgExpr: "arg? name= argnumber= location=",
    GroupingFunc: "args* location=",
    MinMaxExpr: "op= args* location=",
    RowExpr: "args* row_format= location=",
    SQLValueFunction: "op= typmod= location=",
    SubLink: "subLinkType= testexpr? operName* subselect? location=",
    TypeCast: "arg? typeName:TypeName location=",
    TypeName: "names* typmods* typemod= arrayBounds* location=",
    // Standard SQL/XML and SQL/JSON.
    XmlExpr: "op= name= named_args* args* xmloption= indent= location=",
    XmlSerialize: "xmloption= expr? typeName:TypeName indent= location=",
    JsonFormat: "format_type= encoding= location=",
    JsonOutput: "typeName:TypeName returning:JsonReturning",
    JsonReturning: "format:JsonFormat",
    JsonValueExpr: "raw_expr? format:JsonFormat",
    JsonKeyValue: "key? value:JsonValueExpr",
    JsonBehavior: "btype= expr? location=",
    JsonIsPredicate: "expr? format:JsonFormat item_type= unique_keys= location=",
    JsonObjectConstructor: "exprs* output:JsonOutput absent_on_null= unique= location=",
    JsonArrayConstructor: "exprs* output:JsonOutput absent_on_null= location=",
    JsonArrayQueryConstructor: "query? output:JsonOutput format:JsonFormat absent_on_null= location=",
    JsonAggConstructor: "output:JsonOutput agg_filter? agg_order* over:WindowDef location=",
    JsonObjectAgg: "constructor:JsonAggConstructor arg:JsonKeyValue absent_on_null= unique=",
    JsonArrayAgg: "constructor:JsonAggConstructor arg:JsonValueExpr absent_on_null=",
    JsonParseExpr: "expr:JsonValueExpr output:JsonOutput unique_keys= location=",
    JsonScalarExpr: "expr? output:JsonOutput location=",
    JsonSerializeExpr: "expr:JsonValueExpr output:JsonOutput location=",
    JsonFuncExpr:
      "op= context_item:JsonValueExpr pathspec? passing* output:JsonOutput on_empty:JsonBehavior on_error:JsonBehavior wrapper= quotes= location=",
    JsonArgument: "val:JsonValueExpr name=",
    // Leaves.
    List: "items*",
    Integer: "ival=",
    Float: "fval=",
    Boolean: "boolval=",
    String: "sval=",
    BitString: "bsval=",
  }).map(([kind, text]) => [kind, shape(text)]),
);

/**
 * Syntax that older servers read as something else: before these versions `json_value(…)` is a call of a function of that name.
 * Values are `server_version_num`.
 */
const since: ReadonlyMap<string, number> = new Map([
  ["JsonObjectConstructor", 160_000],
  ["JsonArrayConstructor", 160_000],
  ["JsonArrayQueryConstructor", 160_000],
  ["JsonObjectAgg", 160_000],
  ["JsonArrayAgg", 160_000],
  ["JsonIsPredicate", 160_000],
  ["JsonParseExpr", 170_000],
  ["JsonScalarExpr", 170_000],
  ["JsonSerializeExpr", 170_000],
  ["JsonFuncExpr", 170_000],
]);

/** Names in these fields are compared with names in the catalog or in the statement. */
const nameBytesMax = 60;

export interface ShapeLimits {
  /** The server folds and cuts names by its own encoding: in another one than UTF8, names must be ASCII. */
  readonly serverEncoding: string;
  /** `server_version_num`. */
  readonly serverVersion: number;
}

/**
 * Checks a whole statement against the allow-list.
 * @throws StatementRefused `statement.unsupported`, `statement.too-deep`, `name.unsupported-form`
 */
export function checkShape(node: unknown, bounds: ShapeLimits): void {
  checkNode(node, bounds, 1);
}

function checkNode(node: unknown, bounds: ShapeLimits, depth: number): void {
  if (depth > limits.statementDepthMax) {
    refuseDepth();
  }
  if (typeof node !== "object" || node === null) {
    refuseUnknown("value");
  }
  const entries: readonly (readonly [string, unknown])[] = Object.entries(node);
  // An element of a list that is not there (a function without column definitions).
  if (entries.length === 0) {
    return;
  }
  const [kind, fields] = entries[0] ?? ["", null];
  if (entries.length !== 1) {
    refuseUnknown(kind);
  }
  checkFields(kind, fields, bounds, depth);
}

function checkFields(kind: string, fields: unknown, bounds: ShapeLimits, depth: number): void {
  const known = shapes.get(kind);
  if ((since.get(kind) ?? 0) > bounds.serverVersion) {
    refuseUnsupported("this syntax of SQL/JSON is newer than the server", "Use functions such as json_build_object.");
  }
  if (known === undefined || typeof fields !== "object" || fields === null) {
    return refuseUnknown(kind);
  }
  for (const [field, value] of Object.entries(fields)) {
    const expected = known.get(field);
    if (field === "catalogname") {
      refuse("name.unsupported-form", "a table is named with its database", "Write schema.table.");
    } else if (expected === undefined) {
      refuseUnknown(`${kind}.${field}`);
    } else if (expected === "value") {
      checkValue(kind, value, bounds);
    } else if (expected === "node") {
      checkNode(value, bounds, depth + 1);
    } else if (expected === "nodes") {
      for (const item of Array.isArray(value) ? value : refuseUnknown(`${kind}.${field}`)) {
        // A list itself adds no level: `a AND b AND c` is one.
        checkNode(item, bounds, depth + 1);
      }
    } else if (kind === "A_Const") {
      checkConstant(value);
    } else {
      checkFields(expected, value, bounds, depth + 1);
    }
  }
}

function checkConstant(value: unknown): void {
  if (typeof value !== "object" || value === null || Object.values(value).some((part) => typeof part === "object")) {
    refuseUnknown("A_Const");
  }
}

function checkValue(kind: string, value: unknown, bounds: ShapeLimits): void {
  if (typeof value !== "string") {
    if (typeof value !== "number" && typeof value !== "boolean") {
      refuseUnknown(kind);
    }
    return;
  }
  // PostgreSQL cuts names at 63 bytes, at a character of its own encoding: near that, ours and its could differ.
  const ascii = !/[^\u0000-\u007f]/.test(value);
  if (!ascii && (bounds.serverEncoding !== "UTF8" || Buffer.byteLength(value, "utf8") > nameBytesMax)) {
    refuse(
      "name.unsupported-form",
      "a long name has letters outside ASCII",
      `Use names of at most ${nameBytesMax} bytes.`,
    );
  }
}

function refuseUnknown(what: string): never {
  refuseUnsupported(`the statement uses ${what}, which is not supported`, "Write the statement without it.");
}
