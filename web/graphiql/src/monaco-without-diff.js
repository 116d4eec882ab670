/** Stands in for Monaco's diff views, which its entry module imports and GraphiQL never opens. */
export class DiffEditorWidget {}
export class MultiDiffEditorWidget {}
