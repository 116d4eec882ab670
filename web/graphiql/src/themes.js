/** Editor theme names by shade, in the form that GraphiQL's `editorTheme` takes. */
export const EDITOR_THEME = { dark: "quarterdeck-dark", light: "quarterdeck-light" };

const SHADES = {
  dark: { base: "vs-dark", panel: "#1d2635", accent: "#5cb2f5", field: "#b7c2d711", argument: "#f0a868" },
  light: { base: "vs", panel: "#ffffff", accent: "#0b6bb8", field: "#3b4b6811", argument: "#a4500f" },
};

/** The Monaco theme of a shade: the editor's own syntax colours on GraphiQL's panels, with our accent. */
export function editorThemeData(shade) {
  const { base, panel, accent, field, argument } = SHADES[shade];
  const faintAccent = `${accent}22`;
  return {
    base,
    inherit: true,
    rules: [{ token: "argument.identifier.gql", foreground: argument.slice(1) }],
    colors: {
      "editor.background": "#ffffff00",
      "scrollbar.shadow": "#ffffff00",
      "editorHoverWidget.background": panel,
      "editorSuggestWidget.background": panel,
      "editorWidget.background": panel,
      "menu.background": panel,
      "quickInput.background": panel,
      "input.background": field,
      "textLink.foreground": accent,
      "textLink.activeForeground": accent,
      "editorLink.activeForeground": accent,
      "list.highlightForeground": accent,
      "list.focusHighlightForeground": accent,
      "editorSuggestWidget.selectedForeground": accent,
      "menu.selectionForeground": accent,
      "pickerGroup.foreground": accent,
      focusBorder: accent,
      "editorSuggestWidget.selectedBackground": faintAccent,
      "list.hoverBackground": faintAccent,
      "menu.selectionBackground": faintAccent,
      "quickInputList.focusBackground": faintAccent,
      "toolbar.hoverBackground": faintAccent,
    },
  };
}
