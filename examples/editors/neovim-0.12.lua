-- peft-daemon in Neovim 0.12 or later, which shows ghost text itself; <Tab> accepts it.
-- `gra` on a comment or a docstring offers to generate code from it.

vim.lsp.config("peft_daemon", {
  cmd = { "peft-daemon", "lsp" },
  root_markers = { ".peft-daemon.toml", ".git" },
  settings = { ["peft-daemon"] = {} }, -- see docs/editors.md
  handlers = {
    ["peft-daemon/status"] = function(_, status)
      vim.g.peft_daemon = status.state -- for a status line: %{get(g:,'peft_daemon','')}
      vim.cmd.redrawstatus()
    end,
  },
})
vim.lsp.enable("peft_daemon")
vim.lsp.inline_completion.enable()

-- Neovim puts the text in as it came: in a file with CRLF the CRs would become part of the lines.
local function without_cr(item)
  item.insert_text = item.insert_text:gsub("\r\n", "\n")
  return item
end

vim.keymap.set("i", "<Tab>", function()
  if not vim.lsp.inline_completion.get({ on_accept = without_cr }) then
    return "<Tab>"
  end
end, { expr = true, desc = "Accept ghost text" })
